"""The file of a group of tensors: its layout, which safetensors reads, and its bytes."""

from __future__ import annotations

import itertools
import json
import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["ITEM_BYTES", "HostTensor", "Layout", "Slot", "layout_of", "pieces"]

ALIGNMENT = 64  # bytes; of the first tensor in the file

# The codes of safetensors, and the numpy types of those that numpy has.
ITEM_BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U64": 8,
    "U32": 4,
    "U16": 2,
    "U8": 1,
    "BOOL": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "C64": 8,
}
NUMPY = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "|i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "|u1",
    "BOOL": "|b1",
    "C64": "<c8",
}
CODES = {np.dtype(name): code for code, name in NUMPY.items()}


@dataclass(frozen=True, kw_only=True)
class HostTensor:
    """A tensor in the memory of the host.

    Attributes:
        name: Within its group.
        dtype: Code of safetensors.
        shape: Its sizes; of one that is stored as "U8" because safetensors has no code for it, the
            last size is that of an item in bytes.
        data: Its bytes, little-endian and in C order.
        logical_dtype: What it is if it is stored as "U8" for want of a code.
        alias_of: The tensor of the group that shares its bytes, which are stored once.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: memoryview
    logical_dtype: str | None = None
    alias_of: str | None = None

    def __post_init__(self) -> None:
        """Validate."""
        if self.dtype not in ITEM_BYTES:
            raise ValueError(f"`dtype` must be one of {', '.join(ITEM_BYTES)}, got {self.dtype!r}.")
        if self.data.ndim != 1 or self.data.format != "B" or not self.data.c_contiguous:
            raise ValueError("`data` must be a flat and contiguous view of bytes.")
        expected = math.prod(self.shape) * ITEM_BYTES[self.dtype]
        if self.data.nbytes != expected:
            raise ValueError(
                f"`data` must have the {expected} bytes of {self.dtype} {list(self.shape)}, "
                f"got {self.data.nbytes}."
            )

    @classmethod
    def of(
        cls, name: str, array: npt.NDArray[np.generic], *, alias_of: str | None = None
    ) -> HostTensor:
        """Return an array as a tensor; without a copy if it is little-endian and contiguous.

        A type of numpy that safetensors has no code for is stored as bytes.
        """
        if array.dtype.kind not in "biufc":
            raise TypeError(f"`array` must hold numbers, got {array.dtype} for {name!r}.")
        array = np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
        code, shape, logical = CODES.get(array.dtype), array.shape, None
        if code is None:
            code, logical = "U8", array.dtype.name
            shape = (*shape, array.dtype.itemsize)
        flat = array.reshape(-1).view(np.uint8).data
        return cls(
            name=name, dtype=code, shape=shape, data=flat, logical_dtype=logical, alias_of=alias_of
        )

    def array(self) -> npt.NDArray[np.generic]:
        """Return a view as numpy has it; bits as unsigned numbers for a type that numpy lacks."""
        name = NUMPY.get(self.dtype, f"<u{ITEM_BYTES[self.dtype]}")
        return np.frombuffer(self.data, dtype=name).reshape(self.shape)


@dataclass(frozen=True, kw_only=True)
class Slot:
    """The place of a tensor in the file of its group.

    Attributes:
        name: Of the tensor.
        dtype: Code of safetensors.
        shape: Its sizes.
        logical_dtype: What it is if that has no code.
        alias_of: The tensor whose bytes are its own, too; it is not in the header then.
        offset: Of its first byte in the file.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    logical_dtype: str | None
    alias_of: str | None
    offset: int

    @property
    def nbytes(self) -> int:
        """Its length."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The file of a group.

    Attributes:
        header: Its first bytes, up to the first tensor.
        slots: The tensors in the order of the file, then the aliases by name.
        nbytes: Its length.
    """

    header: bytes
    slots: tuple[Slot, ...]
    nbytes: int

    @property
    def stored(self) -> tuple[Slot, ...]:
        """The tensors that have bytes of their own."""
        return tuple(slot for slot in self.slots if slot.alias_of is None)


Described = HostTensor | Slot


def layout_of(group: str, step: int, tensors: Iterable[Described]) -> Layout:
    """Return the file of a group: the same for equal names, types and shapes in any order.

    Args:
        group: Its name.
        step: Of the state, which the header tells.
        tensors: The tensors, whose bytes do not matter here, or the slots of a layout.

    Raises:
        ValueError: If two have the same name, or an alias is not that of a tensor of its type.
    """
    named = _by_name(tensors)
    stored = [one for one in named.values() if one.alias_of is None]
    stored.sort(key=lambda one: (-ITEM_BYTES[one.dtype], one.name.encode()))
    sizes = [math.prod(one.shape) * ITEM_BYTES[one.dtype] for one in stored]
    ends = list(itertools.accumulate(sizes))
    header = _header(group, step, stored, sizes, ends)
    slots = {
        one.name: _slot(one, len(header) + end - size)
        for one, size, end in zip(stored, sizes, ends, strict=True)
    }
    aliases = [one for _, one in sorted(named.items()) if one.alias_of is not None]
    for one in aliases:
        slots[one.name] = _slot(one, _target(group, one, slots).offset)
    return Layout(
        header=header,
        slots=tuple(slots.values()),
        nbytes=len(header) + (ends[-1] if ends else 0),
    )


def pieces(
    layout: Layout, tensors: Iterable[HostTensor], *, start: int = 0, stop: int | None = None
) -> Iterator[memoryview]:
    """Yield the bytes `start` to `stop` of a file, without copying them.

    Args:
        layout: Of the file.
        tensors: Those that the layout was made of.
        start: The first byte.
        stop: The first byte that is not wanted, by default the end.
    """
    stop = layout.nbytes if stop is None else stop
    data = {tensor.name: tensor.data for tensor in tensors}
    segments = [(0, memoryview(layout.header))]
    segments += [(slot.offset, data[slot.name]) for slot in layout.stored]
    for offset, segment in segments:
        piece = segment[max(start - offset, 0) : max(stop - offset, 0)]
        if piece.nbytes:
            yield piece


def _by_name(tensors: Iterable[Described]) -> dict[str, Described]:
    named: dict[str, Described] = {}
    for tensor in tensors:
        if tensor.name in named or tensor.name == "__metadata__":
            raise ValueError(f"`tensors` must have names of their own, got {tensor.name!r} twice.")
        named[tensor.name] = tensor
    return named


def _header(
    group: str, step: int, stored: Sequence[Described], sizes: Sequence[int], ends: Sequence[int]
) -> bytes:
    entries: dict[str, object] = {
        "__metadata__": {"elche.group": group, "elche.step": str(step), "format": "pt"}
    }
    for one, size, end in zip(stored, sizes, ends, strict=True):
        entries[one.name] = {
            "dtype": one.dtype,
            "shape": list(one.shape),
            "data_offsets": [end - size, end],
        }
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    return struct.pack("<Q", len(text)) + text


def _slot(one: Described, offset: int) -> Slot:
    return Slot(
        name=one.name,
        dtype=one.dtype,
        shape=tuple(one.shape),
        logical_dtype=one.logical_dtype,
        alias_of=one.alias_of,
        offset=offset,
    )


def _target(group: str, one: Described, slots: dict[str, Slot]) -> Slot:
    target = slots.get(one.alias_of or "")
    own = one.dtype, tuple(one.shape), one.logical_dtype, None
    if target is None or own != (
        target.dtype,
        target.shape,
        target.logical_dtype,
        target.alias_of,
    ):
        raise ValueError(
            f"`alias_of` must name a tensor of group {group!r} with the type and shape of "
            f"{one.name!r}, got {one.alias_of!r}."
        )
    return target
