"""Which rows of a state belong to which partition."""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lightning_elche.partition.errors import (
    CoverageMismatch,
    DuplicatePartition,
    EmptyRange,
    InvalidPartitionCount,
    InvertedRange,
    NonContiguousRange,
    RangeOutOfBounds,
    SingleProcessHasAssignments,
    WorkerCountMismatch,
)

__all__ = [
    "PartitionAssignment",
    "PartitionId",
    "PartitionMode",
    "PartitionPlan",
    "canonical_json",
]


@dataclass(frozen=True, order=True)
class PartitionId:
    """Number of a partition.

    Args:
        value: The number, from 0.
    """

    value: int

    def __repr__(self) -> str:
        return f"PartitionId({self.value})"


class PartitionMode(str, enum.Enum):
    """How rows are assigned."""

    SINGLE_PROCESS = "single_process"
    STATIC_ROW_RANGES = "static_row_ranges"


@dataclass(frozen=True)
class PartitionAssignment:
    """A range of rows that belongs to one partition.

    Args:
        partition_id: The partition.
        row_start: Its first row.
        row_end: The row behind its last one.
        worker: Label of the worker that it is assigned to, if to one.
    """

    partition_id: PartitionId
    row_start: int
    row_end: int
    worker: str | None = None

    @property
    def num_rows(self) -> int:
        """The number of rows, 0 for an inverted range."""
        return max(self.row_end - self.row_start, 0)


@dataclass(frozen=True)
class PartitionPlan:
    """An assignment of the rows of a state to partitions.

    Args:
        mode: Whether one partition has all rows, however many they are.
        assignments: The ranges, none if one partition has all rows.

    Example:
        >>> plan = PartitionPlan.row_ranges(10, 3)
        >>> [(a.row_start, a.row_end) for a in plan.assignments]
        [(0, 4), (4, 7), (7, 10)]
    """

    mode: PartitionMode = PartitionMode.SINGLE_PROCESS
    assignments: tuple[PartitionAssignment, ...] = ()

    @classmethod
    def single_process(cls) -> PartitionPlan:
        """Return the plan of one partition that has all rows."""
        return cls()

    @classmethod
    def row_ranges(cls, rows: int, count: int) -> PartitionPlan:
        """Return a plan of equal numbers of rows; the first partitions get one more.

        Args:
            rows: Number of rows.
            count: Number of partitions; those that would be empty are left out.

        Raises:
            InvalidPartitionCount: If `count` is not positive.
            ValueError: If `rows` is negative.
        """
        if rows < 0:
            raise ValueError(f"`rows` must be >= 0, got {rows}.")
        _check_count(count)
        base, longer = divmod(rows, count)
        return _of_cuts(i * base + min(i, longer) for i in range(count + 1))

    @classmethod
    def balanced(cls, row_bytes: Sequence[int] | NDArray[np.int64], count: int) -> PartitionPlan:
        """Return a plan of nearly equal numbers of bytes.

        No partition holds more than its share and one row.

        Args:
            row_bytes: Size of each row in bytes.
            count: Number of partitions; those that would be empty are left out.

        Raises:
            InvalidPartitionCount: If `count` is not positive.
            ValueError: If a size is negative.
        """
        _check_count(count)
        sizes = np.asarray(row_bytes, dtype=np.int64)
        if sizes.size and int(sizes.min()) < 0:
            raise ValueError(f"`row_bytes` must be >= 0, got {int(sizes.min())}.")
        ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        total = int(ends[-1])
        # In integers of any size: the least row whose prefix, times count, is at least i * total.
        shares = np.array([-(-i * total // count) for i in range(count)], dtype=np.int64)
        cuts = np.searchsorted(ends, shares).tolist()
        return _of_cuts([*cuts, sizes.size])  # rows of 0 bytes at the end belong to the last

    def with_workers(self, labels: Sequence[str]) -> PartitionPlan:
        """Return this plan with a worker for each assignment.

        Raises:
            WorkerCountMismatch: If there are more or fewer labels than assignments.
        """
        if len(labels) != len(self.assignments):
            raise WorkerCountMismatch(assignments=len(self.assignments), workers=len(labels))
        pairs = zip(self.assignments, labels, strict=True)
        return replace(self, assignments=tuple(replace(a, worker=label) for a, label in pairs))

    @property
    def partition_count(self) -> int:
        """The number of partitions."""
        return 1 if self.mode is PartitionMode.SINGLE_PROCESS else len(self.assignments)

    @property
    def has_worker_assignments(self) -> bool:
        """Whether any partition is assigned to a worker."""
        return any(a.worker is not None for a in self.assignments)

    @property
    def sha256(self) -> str:
        """The digest of the plan, in hexadecimal."""
        assignments = [
            {"id": a.partition_id.value, "row_end": a.row_end, "row_start": a.row_start}
            | {"worker": a.worker}
            for a in self.assignments
        ]
        plan = {"assignments": assignments, "mode": self.mode.value}
        return hashlib.sha256(canonical_json(plan)).hexdigest()

    def materialized(self, rows: int) -> tuple[PartitionAssignment, ...]:
        """Return the assignments, also of the plan of one partition."""
        if self.mode is PartitionMode.SINGLE_PROCESS:
            return (PartitionAssignment(PartitionId(0), 0, rows),)
        return self.assignments

    def validate(self, rows: int) -> None:
        """Check that each of `rows` rows is assigned once, in order.

        Raises:
            PartitionPlanError: If not; a subclass says what is wrong.
        """
        if self.mode is PartitionMode.SINGLE_PROCESS:
            if self.assignments:
                raise SingleProcessHasAssignments
            return
        covered = 0
        for assignment in self.assignments:
            _check_range(assignment, covered, rows)
            covered = assignment.row_end
        if not self.assignments or covered != rows:
            raise CoverageMismatch(covered, rows)
        _check_ids(self.assignments)


def canonical_json(value: object) -> bytes:
    """Return the one JSON text of `value`: UTF-8, keys sorted, no spaces.

    Raises:
        TypeError: If there is a float in it, which has several texts.
    """
    _refuse_floats(value)
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


def _check_count(count: int) -> None:
    if count < 1:
        raise InvalidPartitionCount


def _of_cuts(cuts: Iterable[int]) -> PartitionPlan:
    """Return the plan of the ranges between cuts; no rows at all are one empty range."""
    ranges = list(pairwise(cuts))
    kept = [(start, end) for start, end in ranges if start < end] or [(0, 0)]
    assignments = (PartitionAssignment(PartitionId(i), *ends) for i, ends in enumerate(kept))
    return PartitionPlan(PartitionMode.STATIC_ROW_RANGES, tuple(assignments))


def _check_range(assignment: PartitionAssignment, expected_start: int, rows: int) -> None:
    partition, start, end = assignment.partition_id, assignment.row_start, assignment.row_end
    if start != expected_start:
        raise NonContiguousRange(partition, start, expected_start)
    if end < start:
        raise InvertedRange(partition, start, end)
    if end > rows:
        raise RangeOutOfBounds(partition, end, rows)
    if end == start and rows > 0:
        raise EmptyRange(partition)


def _check_ids(assignments: Iterable[PartitionAssignment]) -> None:
    seen: set[PartitionId] = set()
    for assignment in assignments:
        if assignment.partition_id in seen:
            raise DuplicatePartition(assignment.partition_id)
        seen.add(assignment.partition_id)


def _refuse_floats(value: object) -> None:
    if isinstance(value, float):
        raise TypeError(f"`value` must hold no floats, since they have several texts, got {value}.")
    if isinstance(value, dict):
        for item in value.values():
            _refuse_floats(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _refuse_floats(item)
