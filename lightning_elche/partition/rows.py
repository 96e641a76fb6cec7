"""The row space: the bytes of many tensors as one sequence of rows that a plan can cut."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

import numpy as np
from numpy.typing import NDArray

from lightning_elche.partition.errors import ReassemblyError
from lightning_elche.partition.fnv import state_value
from lightning_elche.partition.replay import ReplayFingerprint
from lightning_elche.partition.rml import (
    ROW_BYTES,
    Bytes,
    bytes_of,
    num_rows,
    sum_lanes,
    tensor_lanes,
)

__all__ = ["RowSpace", "TensorCut", "TensorEntry", "TensorRows"]


@dataclass(frozen=True)
class TensorEntry:
    """A tensor of the row space.

    Args:
        group: The group of tensors that it belongs to.
        name: Its name there.
        dtype: Its safetensors code, such as "F32".
        shape: Its shape.
        num_bytes: Its size.
    """

    group: str
    name: str
    dtype: str
    shape: tuple[int, ...]
    num_bytes: int

    @property
    def full_name(self) -> str:
        """Its name with its group."""
        return f"{self.group}/{self.name}"

    @property
    def num_rows(self) -> int:
        """The number of its rows."""
        return num_rows(self.num_bytes)


@dataclass(frozen=True)
class TensorCut:
    """Consecutive rows of one tensor.

    Args:
        tensor: The tensor.
        first_row: The first of them, counted in the tensor.
        num_rows: How many they are.
    """

    tensor: TensorEntry
    first_row: int
    num_rows: int

    @property
    def byte_start(self) -> int:
        """Where they start in the tensor."""
        return self.first_row * ROW_BYTES

    @property
    def byte_end(self) -> int:
        """Where they end in the tensor."""
        return min((self.first_row + self.num_rows) * ROW_BYTES, self.tensor.num_bytes)


class RowSpace:
    """The rows of tensors, one tensor after the other.

    Args:
        tensors: The tensors in the order of their files: groups one after the other.

    Example:
        >>> space = RowSpace([TensorEntry("model", "w", "U8", (65544,), 65544)])
        >>> space.row_bytes.tolist()
        [65536, 8]
    """

    def __init__(self, tensors: Iterable[TensorEntry]) -> None:
        self.tensors = tuple(tensors)
        self._ends = list(accumulate(tensor.num_rows for tensor in self.tensors))
        names = [tensor.full_name for tensor in self.tensors]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"`tensors` must have different names, got {twice!r} twice.")
        groups = [group for group, _ in groupby(self.tensors, key=lambda tensor: tensor.group)]
        if len(set(groups)) < len(groups):
            raise ValueError(f"`tensors` must come group by group, got {groups}.")

    @property
    def num_rows(self) -> int:
        """The number of rows."""
        return self._ends[-1] if self._ends else 0

    @property
    def row_bytes(self) -> NDArray[np.int64]:
        """The size of each row in bytes."""
        sizes = np.full(self.num_rows, ROW_BYTES, dtype=np.int64)
        for end, tensor in zip(self._ends, self.tensors, strict=True):
            sizes[end - 1] = tensor.num_bytes - (tensor.num_rows - 1) * ROW_BYTES
        return sizes

    def cuts(self, row_start: int, row_end: int) -> list[TensorCut]:
        """Return what rows of which tensors a range of rows is."""
        index = bisect_right(self._ends, row_start)
        cuts: list[TensorCut] = []
        while row_start < row_end:
            tensor, end = self.tensors[index], min(self._ends[index], row_end)
            first_row = row_start - (self._ends[index] - tensor.num_rows)
            cuts.append(TensorCut(tensor, first_row, end - row_start))
            row_start, index = end, index + 1
        return cuts


class TensorRows:
    """Some rows of a row space with their bytes, in memory.

    Args:
        space: The row space.
        row_start: The first row.
        row_end: The row behind the last one.
        data: The bytes of each tensor that has rows among them, in its order.

    Example:
        >>> space = RowSpace([TensorEntry("model", "w", "U8", (65544,), 65544)])
        >>> rows = TensorRows.of_tensors(space, {"model/w": bytes(65544)})
        >>> rows.slice(1, 2).num_bytes
        8
    """

    def __init__(
        self, space: RowSpace, row_start: int, row_end: int, data: Sequence[NDArray[np.uint8]]
    ) -> None:
        self.space = space
        self.row_start, self.row_end = row_start, row_end
        self.cuts = space.cuts(row_start, row_end)
        self.data = tuple(data)
        sizes = [cut.byte_end - cut.byte_start for cut in self.cuts]
        if [part.size for part in self.data] != sizes:
            raise ValueError(
                f"`data` must hold {sizes} bytes, got {[part.size for part in self.data]}."
            )

    @classmethod
    def of_tensors(cls, space: RowSpace, tensors: Mapping[str, Bytes]) -> TensorRows:
        """Return all rows of a row space.

        Args:
            space: The row space.
            tensors: The bytes of each tensor by its name with its group; they are not copied.
        """
        data = [bytes_of(tensors[tensor.full_name]) for tensor in space.tensors]
        return cls(space, 0, space.num_rows, data)

    @property
    def num_rows(self) -> int:
        """The number of rows."""
        return self.row_end - self.row_start

    @property
    def num_bytes(self) -> int:
        """The number of bytes."""
        return sum(part.size for part in self.data)

    @property
    def schema(self) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
        """Name, type and shape of all tensors of the row space."""
        return tuple((one.full_name, one.dtype, one.shape) for one in self.space.tensors)

    @property
    def row_ids(self) -> NDArray[np.uint64]:
        """The numbers of the rows in the row space."""
        return np.arange(self.row_start, self.row_end, dtype=np.uint64)

    def tensor(self, full_name: str) -> NDArray[np.uint8]:
        """Return the bytes that are here of a tensor; what is written to them is kept.

        Raises:
            KeyError: If none of its rows is here.
        """
        pairs = zip(self.cuts, self.data, strict=True)
        return {cut.tensor.full_name: part for cut, part in pairs}[full_name]

    def slice(self, row_start: int, row_end: int) -> TensorRows:
        """Return a copy of some rows, counted from the first one here."""
        start, end = self.row_start + row_start, self.row_start + row_end
        pairs = zip(self.cuts, self.data, strict=True)
        held = {cut.tensor.full_name: (cut, part) for cut, part in pairs}
        data = []
        for cut in self.space.cuts(start, end):
            own, part = held[cut.tensor.full_name]
            data.append(
                part[cut.byte_start - own.byte_start : cut.byte_end - own.byte_start].copy()
            )
        return TensorRows(self.space, start, end, data)

    def concat(self, parts: Sequence[TensorRows]) -> TensorRows:
        """Return the rows of all parts, which must follow each other."""
        pieces: dict[str, list[NDArray[np.uint8]]] = {}
        row_end = parts[0].row_start
        for rows in parts:
            if rows.row_start != row_end:
                raise ReassemblyError(f"rows from {rows.row_start} on follow rows to {row_end}")
            row_end = rows.row_end
            for cut, part in zip(rows.cuts, rows.data, strict=True):
                pieces.setdefault(cut.tensor.full_name, []).append(part)
        data = [np.concatenate(of_tensor) for of_tensor in pieces.values()]
        return TensorRows(self.space, parts[0].row_start, row_end, data)

    def fingerprint(self, step: int) -> ReplayFingerprint:
        """Return the fingerprint of the rows at a step."""
        tensors = []
        for cut, part in zip(self.cuts, self.data, strict=True):
            one = cut.tensor
            name = one.full_name
            lanes = tensor_lanes(name, one.dtype, one.shape, part, first_row=cut.first_row)
            tensors.append((name, cut.num_rows, lanes))
        total = sum_lanes(lanes for _, _, lanes in tensors)
        return ReplayFingerprint(step, state_value(step, tensors), total)

    def to_bytes(self) -> bytes:
        """Return the bytes of all rows."""
        return b"".join(part.tobytes() for part in self.data)

    def with_bytes(self, data: bytes) -> TensorRows:
        """Return the same rows with other bytes."""
        if len(data) != self.num_bytes:
            raise ValueError(f"`data` must be {self.num_bytes} bytes, got {len(data)}.")
        ends = list(accumulate(part.size for part in self.data))
        array = np.frombuffer(bytearray(data), dtype=np.uint8)
        return TensorRows(self.space, self.row_start, self.row_end, np.split(array, ends[:-1]))
