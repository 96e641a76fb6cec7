"""What was trained of an epoch that is under way: what a checkpoint has to hold of its data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypedDict

__all__ = ["EpochProgress", "indices_of", "ranges_of", "without"]


class EpochProgress(TypedDict):
    """The batches trained so far, over all ranks; JSON-serialisable.

    Attributes:
        epoch: Index of the epoch.
        total: Batches that are dealt in it.
        digest: Names the list of these.
        trained: Positions of the trained batches in that list, as ranges [start, stop).
        ahead: Those of the next epoch, as ranges.
        steps: Optimizer steps made in the epoch.
    """

    epoch: int
    total: int
    digest: str
    trained: list[list[int]]
    ahead: list[list[int]]
    steps: int


def ranges_of(indices: Iterable[int]) -> list[list[int]]:
    """Return the distinct `indices` as sorted ranges [start, stop)."""
    ranges: list[list[int]] = []
    for index in sorted(set(indices)):
        if ranges and ranges[-1][1] == index:
            ranges[-1][1] += 1
        else:
            ranges.append([index, index + 1])
    return ranges


def indices_of(ranges: Iterable[Sequence[int]]) -> set[int]:
    """Return what `ranges_of` was made from."""
    return {index for start, stop in ranges for index in range(start, stop)}


def without(total: int, indices: Iterable[int]) -> list[int]:
    """Return the numbers below `total` that are not among `indices`."""
    left_out = set(indices)
    return [index for index in range(total) if index not in left_out]
