"""A table of named 32-bit columns: the state of an agent-based model, say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightning_elche.partition.fnv import MASK, fingerprint_columns
from lightning_elche.partition.replay import ReplayFingerprint
from lightning_elche.partition.rml import sum_lanes, tensor_lanes

__all__ = ["ColumnState"]

Column = NDArray[np.float32]


class ColumnState:
    """A table whose rows have ids, in memory.

    Its fingerprint takes about a microsecond for each cell: it is for small tables.

    Args:
        ids: The id of each row, each once.
        columns: The values of each column, as many as there are ids.

    Example:
        >>> table = ColumnState([1, 2, 3], {"x": [0.5, 1.5, 2.5]})
        >>> table.slice(1, 3).columns["x"]
        array([1.5, 2.5], dtype=float32)
    """

    def __init__(
        self, ids: Sequence[int] | NDArray[np.uint64], columns: Mapping[str, ArrayLike]
    ) -> None:
        self.ids = _ids(ids)
        arrays = {name: _column(name, data) for name, data in columns.items()}
        # Values change in place; a column does not come, go or get another length.
        self.columns = MappingProxyType(arrays)
        for name, column in self.columns.items():
            if column.shape != self.ids.shape:
                raise ValueError(
                    f"`columns` must have one value for each of {self.ids.size} ids, column "
                    f"{name!r} has shape {column.shape}."
                )

    @property
    def num_rows(self) -> int:
        """The number of rows."""
        return int(self.ids.size)

    @property
    def num_bytes(self) -> int:
        """The bytes of ids and columns."""
        return self.ids.nbytes + sum(column.nbytes for column in self.columns.values())

    @property
    def schema(self) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
        """Name, type and shape of each column, rows left out."""
        return tuple((name, "F32", ()) for name in self.columns)

    @property
    def row_ids(self) -> NDArray[np.uint64]:
        """The ids."""
        return self.ids

    def slice(self, row_start: int, row_end: int) -> ColumnState:
        """Return a copy of some rows."""
        rows = slice(row_start, row_end)
        columns = {name: column[rows].copy() for name, column in self.columns.items()}
        return ColumnState(self.ids[rows].copy(), columns)

    def concat(self, parts: Sequence[ColumnState]) -> ColumnState:
        """Return the rows of all parts, in their order."""
        ids = np.concatenate([part.ids for part in parts])
        columns = {
            name: np.concatenate([part.columns[name] for part in parts]) for name in self.columns
        }
        return ColumnState(ids, columns)

    def fingerprint(self, step: int) -> ReplayFingerprint:
        """Return the fingerprint of the table at a step."""
        value = fingerprint_columns(step, self.ids, self.columns)
        shape = (self.num_rows,)
        lanes = [tensor_lanes("ids", "U64", shape, self.ids)]
        for name, column in self.columns.items():
            lanes.append(tensor_lanes(f"columns/{name}", "F32", shape, column))
        return ReplayFingerprint(step, value, sum_lanes(lanes))

    def to_bytes(self) -> bytes:
        """Return the bytes of ids, then of the columns."""
        return self.ids.tobytes() + b"".join(c.tobytes() for c in self.columns.values())

    def with_bytes(self, data: bytes) -> ColumnState:
        """Return a table of these columns and as many rows, with the values that `data` holds."""
        if len(data) != self.num_bytes:
            raise ValueError(f"`data` must be {self.num_bytes} bytes, got {len(data)}.")
        ids = np.frombuffer(data, "<u8", count=self.num_rows)
        values = np.frombuffer(data, "<f4", offset=ids.nbytes)
        table = values.reshape(len(self.columns), self.num_rows)
        columns = {name: row.copy() for name, row in zip(self.columns, table, strict=True)}
        return ColumnState(ids.copy(), columns)


def _ids(ids: Sequence[int] | NDArray[np.uint64]) -> NDArray[np.uint64]:
    if isinstance(ids, np.ndarray):
        is_good = ids.ndim == 1 and ids.dtype.kind in "iu" and not (ids < 0).any()
    else:
        is_good = all(type(one) is int and 0 <= one <= MASK for one in ids)
    if not is_good:
        raise ValueError(f"`ids` must be a list of integers of 64 bits, >= 0, got {ids!r}.")
    values = np.asarray(ids, dtype="<u8")
    if np.unique(values).size != values.size:
        raise ValueError("`ids` must hold each id once, got one twice.")
    return values


def _column(name: str, data: ArrayLike) -> Column:
    if isinstance(data, np.ndarray) and data.dtype != np.float32:
        raise TypeError(f"`columns` must be float32, column {name!r} is {data.dtype}.")
    return np.asarray(data, dtype="<f4")
