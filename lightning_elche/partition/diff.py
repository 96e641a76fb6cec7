"""What differs between two checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_elche.partition.fs import Fs
from lightning_elche.partition.image import HostTensor
from lightning_elche.partition.manifest import row_space_order
from lightning_elche.partition.read_checkpoint import read_checkpoint, read_manifest
from lightning_elche.partition.rml import ROW_BYTES
from lightning_elche.partition.tree import pointer, read_nodes

__all__ = ["CheckpointDiff", "TensorDiff", "diff_checkpoints"]


@dataclass(frozen=True, kw_only=True)
class TensorDiff:
    """A tensor that differs.

    Attributes:
        name: With its group.
        reason: "only in A", "only in B", "type", "shape" or "values".
        row: First row of 64 KiB that differs, counted in the tensor.
        element: First element that differs, counted in C order.
        count: Number of elements that differ in any bit.
        max_abs: Largest distance of two values; NaN if one of them is NaN, `None` for a type that
            is stored as bytes.
    """

    name: str
    reason: str
    row: int | None = None
    element: int | None = None
    count: int = 0
    max_abs: float | None = None


@dataclass(frozen=True, kw_only=True)
class CheckpointDiff:
    """What differs.

    Attributes:
        tensors: In the order of the row space, then the other groups.
        tree_paths: JSON pointers into the trees, whose tags count as keys.
    """

    tensors: tuple[TensorDiff, ...]
    tree_paths: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        """Whether nothing differs."""
        return not (self.tensors or self.tree_paths)


def diff_checkpoints(fs: Fs, path_a: Path, path_b: Path) -> CheckpointDiff:
    """Compare two checkpoints, one group in memory at a time. Steps and metrics are not compared.

    Args:
        fs: The file system.
        path_a: Of one.
        path_b: Of the other.

    Raises:
        CheckpointError: If one of them must not be read.
    """
    groups_a, groups_b = (read_manifest(fs, path).groups for path in (path_a, path_b))
    names = [*row_space_order([*groups_a, *groups_b]), *sorted({*groups_a, *groups_b})]
    found: list[TensorDiff] = []
    for name in dict.fromkeys(names):
        tensors_a = _tensors(fs, path_a, name) if name in groups_a else {}
        tensors_b = _tensors(fs, path_b, name) if name in groups_b else {}
        found += _diff_groups(name, tensors_a, tensors_b)
    tree_a, tree_b = (read_checkpoint(fs, path, groups=()).tree for path in (path_a, path_b))
    paths = _diff_nodes(read_nodes(tree_a), read_nodes(tree_b), "")
    return CheckpointDiff(tensors=tuple(found), tree_paths=tuple(paths))


def _tensors(fs: Fs, path: Path, group: str) -> Mapping[str, HostTensor]:
    return read_checkpoint(fs, path, groups=(group,)).groups[group]


def _diff_groups(
    group: str, tensors_a: Mapping[str, HostTensor], tensors_b: Mapping[str, HostTensor]
) -> Iterator[TensorDiff]:
    for name in dict.fromkeys([*tensors_a, *tensors_b]):
        a, b = tensors_a.get(name), tensors_b.get(name)
        if a is None or b is None:
            yield TensorDiff(name=f"{group}/{name}", reason=f"only in {'B' if a is None else 'A'}")
        elif (a.dtype, a.logical_dtype) != (b.dtype, b.logical_dtype):
            yield TensorDiff(name=f"{group}/{name}", reason="type")
        elif a.shape != b.shape:
            yield TensorDiff(name=f"{group}/{name}", reason="shape")
        elif not np.array_equal(_bytes(a), _bytes(b)):
            yield _diff_values(f"{group}/{name}", a, b)


def _diff_values(name: str, a: HostTensor, b: HostTensor) -> TensorDiff:
    size = a.shape[-1] if a.logical_dtype is not None else a.array().itemsize
    bytes_a, bytes_b = (_bytes(one).reshape(-1, size) for one in (a, b))
    is_other = (bytes_a != bytes_b).any(axis=1)
    first = int(is_other.argmax())
    max_abs = None
    if a.logical_dtype is None:
        values_a, values_b = (_values(one, is_other) for one in (a, b))
        # A NaN in one of them spoils the maximum, as it should; infinities may cancel to NaN.
        with np.errstate(invalid="ignore"):
            max_abs = float(np.abs(values_a - values_b).max())
    return TensorDiff(
        name=name,
        reason="values",
        row=first * size // ROW_BYTES,
        element=first,
        count=int(is_other.sum()),
        max_abs=max_abs,
    )


def _bytes(tensor: HostTensor) -> npt.NDArray[np.uint8]:
    return np.frombuffer(tensor.data, dtype=np.uint8)


def _values(tensor: HostTensor, wanted: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """Return some elements in a type that holds them and their differences."""
    items: npt.NDArray[Any] = tensor.array().reshape(-1)[wanted]
    if tensor.dtype == "BF16":
        items = (items.astype(np.uint32) << 16).view(np.float32)
    elif tensor.dtype.startswith("F8"):
        items = _small_floats(tensor.dtype)[items]
    return items.astype(np.complex128 if items.dtype.kind == "c" else np.longdouble)


def _small_floats(dtype: str) -> npt.NDArray[np.float64]:
    """Return the values of all 256 floats of 8 bits, by their bits."""
    mantissa_bits, bias = (3, 7) if dtype == "F8_E4M3" else (2, 15)
    bits = np.arange(256)
    exponent = (bits & 0x7F) >> mantissa_bits
    mantissa = (bits & ((1 << mantissa_bits) - 1)) / (1 << mantissa_bits)
    scale = 2.0 ** (np.maximum(exponent, 1) - bias)
    values: npt.NDArray[np.float64] = (mantissa + (exponent > 0)) * scale
    if dtype == "F8_E4M3":  # the variant without infinities
        values[(bits & 0x7F) == 0x7F] = np.nan
    else:
        values[exponent == 31] = np.where(mantissa[exponent == 31] == 0.0, np.inf, np.nan)
    values[0x80:] *= -1.0
    return values


def _diff_nodes(a: object, b: object, path: str) -> Iterator[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in dict.fromkeys([*a, *b]):
            if key in a and key in b:
                yield from _diff_nodes(a[key], b[key], pointer(path, key))
            else:
                yield pointer(path, key)
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for i, pair in enumerate(zip(a, b, strict=True)):
            yield from _diff_nodes(*pair, pointer(path, i))
    elif type(a) is not type(b) or repr(a) != repr(b):  # as texts: -0.0 is not 0.0
        yield path or "/"
