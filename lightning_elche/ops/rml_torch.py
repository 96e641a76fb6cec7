"""Row multilinear fingerprints of tensors, taken where they are; equal to those of the host.

Tensors on the CPU share their memory with numpy, whose sums are several times as fast there as
those of torch. On other devices everything is computed by the device, in 64-bit integers that wrap,
and only the lanes leave it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_elche.ops.tensor_types import code_and_shape, is_storable
from lightning_elche.partition.errors import UnsupportedState
from lightning_elche.partition.fnv import MASK, Lanes
from lightning_elche.partition.replay_lanes import NamedLanes
from lightning_elche.partition.rml import (
    G0,
    G1,
    ROW_BYTES,
    ROW_WORDS,
    Unsigned,
    Words,
    mix,
    num_rows,
    row_keys,
    row_sums,
    tensor_salt,
)

__all__ = [
    "device_lanes",
    "host_lanes",
    "named_lanes",
]

SMALL_BYTES = 8192  # of tensors that cost more to call numpy for than to copy
ROWS_PER_PIECE = 1024  # 64 MiB: what a product takes on a device

Data = NDArray[np.uint8]


def named_lanes(tensors: Mapping[str, Tensor]) -> list[NamedLanes]:
    """Return the lanes of tensors, in their order.

    Cost: O(bytes), and some microseconds for each tensor. Each device is waited for once.

    Args:
        tensors: By name with the group, such as "model/weight".

    Raises:
        UnsupportedState: If a tensor has no plain memory: a sparse or quantised one, say.
    """
    by_device: dict[torch.device, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        _check_plain(name, tensor)
        by_device.setdefault(tensor.device, {})[name] = tensor.detach()
    found: dict[str, Lanes] = {}
    for device, own in by_device.items():
        take = host_lanes if device.type == "cpu" else device_lanes
        found |= zip(own, take(own), strict=True)
    return [
        NamedLanes(name, num_rows(tensor.nbytes), found[name]) for name, tensor in tensors.items()
    ]


def host_lanes(tensors: Mapping[str, Tensor]) -> list[Lanes]:
    """Return the lanes of tensors on the CPU, in their order."""
    if not tensors:
        return []
    sums = _host_sums([_bytes(tensor).numpy() for tensor in tensors.values()])
    low, high = (np.concatenate(side) for side in zip(*sums, strict=True))
    counts = [part.size for part, _ in sums]
    starts = np.cumsum([0, *counts[:-1]])
    numbers = (np.arange(low.size) - np.repeat(starts, counts) + 1).astype(np.uint64)
    salts = np.repeat(np.array(_salts(tensors), dtype=np.uint64), counts)
    lane0 = mix(mix(low + numbers * np.uint64(G0) + salts) + high)
    lane1 = mix(mix(high + numbers * np.uint64(G1) + salts) + low)
    sums0, sums1 = (np.add.reduceat(lane, starts).tolist() for lane in (lane0, lane1))
    return list(zip(sums0, sums1, strict=True))


def _host_sums(data: Sequence[Data]) -> list[tuple[Unsigned, Unsigned]]:
    """Return both weighted sums of each row, by tensor; those of small tensors in one pass."""
    small = [part for part in data if part.size <= SMALL_BYTES]
    packed = iter(_packed_sums(small))
    return [next(packed) if part.size <= SMALL_BYTES else row_sums(part) for part in data]


def _packed_sums(data: Sequence[Data]) -> list[tuple[Unsigned, Unsigned]]:
    if not data:
        return []
    starts, keys0, keys1 = _packing(tuple(part.size for part in data))
    words = np.zeros(keys0.size, dtype="<i8")
    into = words.view(np.uint8)
    for part, start in zip(data, (8 * starts).tolist(), strict=True):
        into[start : start + part.size] = part
    low = np.add.reduceat(words * keys0, starts).view(np.uint64)
    high = np.add.reduceat((words >> 32) * keys1, starts).view(np.uint64)
    return [(low[i : i + 1], high[i : i + 1]) for i in range(len(data))]


@functools.lru_cache(maxsize=8)
def _packing(sizes: tuple[int, ...]) -> tuple[NDArray[np.int64], Words, Words]:
    """Return where tensors of these sizes start in words, and the keys of all their words."""
    counts = [max(-(-size // 8), 1) for size in sizes]
    starts = np.cumsum([0, *counts[:-1]])
    keys0, keys1 = (np.concatenate([keys[:count] for count in counts]) for keys in row_keys())
    return starts, keys0, keys1


def device_lanes(tensors: Mapping[str, Tensor]) -> list[Lanes]:
    """Return the lanes of tensors on one device, in their order, computed there."""
    if not tensors:
        return []
    device = next(iter(tensors.values())).device
    keys = _keys_on(device)
    sums = [_device_sums(_bytes(tensor), *keys) for tensor in tensors.values()]
    low, high = (torch.cat(side) for side in zip(*sums, strict=True))
    counts = [num_rows(tensor.nbytes) for tensor in tensors.values()]
    # Made on the host and moved in one piece, so that nothing waits for the device.
    numbers = torch.cat([torch.arange(1, count + 1) for count in counts])
    owners = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    salts = torch.tensor([_signed(salt) for salt in _salts(tensors)])[owners]
    numbers, owners, salts = torch.stack([numbers, owners, salts]).to(device, non_blocking=True)
    lane0 = _device_mix(_device_mix(low + numbers * _signed(G0) + salts) + high)
    lane1 = _device_mix(_device_mix(high + numbers * _signed(G1) + salts) + low)
    total = torch.zeros(len(counts), 2, dtype=torch.int64, device=device)
    total.index_add_(0, owners, torch.stack([lane0, lane1], dim=1))
    return [(lane0 & MASK, lane1 & MASK) for lane0, lane1 in total.tolist()]


def _device_sums(data: Tensor, keys0: Tensor, keys1: Tensor) -> tuple[Tensor, Tensor]:
    """Return both weighted sums of each row."""
    whole = data.numel() // ROW_BYTES
    rows = _words(data[: whole * ROW_BYTES]).view(whole, ROW_WORDS)
    pieces = [rows[i : i + ROWS_PER_PIECE] for i in range(0, whole, ROWS_PER_PIECE)]
    last = data[whole * ROW_BYTES :]
    if last.numel() or not whole:
        padding = last.new_zeros(-last.numel() % 8)
        pieces.append(_words(torch.cat([last, padding])).view(1, -1))
    low = [(piece * keys0[: piece.shape[1]]).sum(1) for piece in pieces]
    high = [((piece >> 32) * keys1[: piece.shape[1]]).sum(1) for piece in pieces]
    return torch.cat(low), torch.cat(high)


def _words(data: Tensor) -> Tensor:
    is_aligned = data.storage_offset() % 8 == 0
    return (data if is_aligned else data.clone()).view(torch.int64)


def _device_mix(z: Tensor) -> Tensor:
    z = (z ^ _shifted(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shifted(z, 27)) * _signed(0x94D049BB133111EB)
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, bits: int) -> Tensor:
    """Shift as unsigned numbers are shifted; that of torch keeps the sign."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _signed(number: int) -> int:
    """Return the signed number of the same bits, which is what torch takes."""
    return number - (1 << 64) if number >> 63 else number


def _bytes(tensor: Tensor) -> Tensor:
    """Return the bytes in C order; a view where there is one."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def _check_plain(name: str, tensor: Tensor) -> None:
    if not is_storable(tensor):
        raise UnsupportedState(name, f"{type(tensor).__name__} ({tensor.layout}, {tensor.dtype})")


def _salts(tensors: Mapping[str, Tensor]) -> list[int]:
    places = [(name, *code_and_shape(tensor)[:2]) for name, tensor in tensors.items()]
    return [_salt(*place) for place in places]


_salt = functools.lru_cache(maxsize=1 << 16)(tensor_salt)


@functools.lru_cache(maxsize=8)
def _keys_on(device: torch.device) -> tuple[Tensor, Tensor]:
    keys0, keys1 = (torch.tensor(keys, device=device) for keys in row_keys())
    return keys0, keys1
