"""What a long run holds, in little memory."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar, overload

from lightning_elche.timeline.causes import CAUSES, Slice

__all__ = ["PackedSlices", "Thinned"]

NUMBERS = {cause: number for number, cause in enumerate(CAUSES)}

T = TypeVar("T")


class PackedSlices(Sequence[Slice]):
    """Slices in the order of time, as numbers side by side: a tenth of what objects take."""

    def __init__(self) -> None:
        self._starts, self._ends = array("d"), array("d")
        self._firsts = array("Q", (0,))  # of the causes of each, and behind the last
        self._causes, self._amounts = array("B"), array("d")

    def append(self, piece: Slice) -> None:
        """Add a slice behind the others."""
        self._starts.append(piece.start_ns)
        self._ends.append(piece.end_ns)
        for cause, ns in piece.causes.items():
            self._causes.append(NUMBERS[cause])
            self._amounts.append(ns)
        self._firsts.append(len(self._causes))

    def totals(self) -> dict[str, float]:
        """Return the nanoseconds of each cause."""
        sums = [0.0] * len(CAUSES)
        for number, ns in zip(self._causes, self._amounts, strict=True):
            sums[number] += ns
        return dict(zip(CAUSES, sums, strict=True))

    def between(self, begin_ns: float, end_ns: float) -> Iterator[Slice]:
        """Yield those that reach into a stretch of time."""
        first = bisect_right(self._ends, begin_ns)
        return map(self._at, range(first, max(first, bisect_left(self._starts, end_ns))))

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[Slice]:
        return map(self._at, range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Slice: ...

    @overload
    def __getitem__(self, index: slice) -> list[Slice]: ...

    def __getitem__(self, index: int | slice) -> Slice | list[Slice]:
        places = range(len(self))[index]
        return self._at(places) if isinstance(places, int) else list(map(self._at, places))

    def _at(self, index: int) -> Slice:
        low, high = self._firsts[index], self._firsts[index + 1]
        names = map(CAUSES.__getitem__, self._causes[low:high])
        causes = dict(zip(names, self._amounts[low:high], strict=True))
        return Slice(self._starts[index], self._ends[index], causes)


class Thinned(Generic[T]):
    """Every n-th of what is added, where n grows so that there are never too many.

    Args:
        limit: How many there may be; an even number.

    Attributes:
        kept: Those that are left, the first one among them.
    """

    def __init__(self, limit: int) -> None:
        self.kept: list[T] = []
        self._limit, self._stride, self._num_added = limit, 1, 0

    def append(self, one: T) -> None:
        """Add one."""
        if self._num_added % self._stride == 0 and len(self.kept) == self._limit:
            del self.kept[1::2]
            self._stride *= 2
        if self._num_added % self._stride == 0:
            self.kept.append(one)
        self._num_added += 1
