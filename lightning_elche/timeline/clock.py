"""One clock for all ranks: what they know of each other's is when exchanges ended on each.

An all-reduce ends on all ranks at nearly the same moment, so that the difference of two ranks'
clocks is the median of the differences between these ends. Clocks drift, by some 50 parts per
million, so that the difference is taken anew every ten minutes and is a line in between.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["ClockOffset", "offset_from_ends", "offset_from_wall"]

KNOT_NS = 600 * 10**9
MIN_EVENTS = 3
MIN_EVENTS_PER_KNOT = 3


@dataclass(frozen=True)
class ClockOffset:
    """How far a rank's clock is ahead of that of the first rank: lines through `knots`.

    Attributes:
        knots: (time on the rank's clock, offset) in nanoseconds, in order.
        source: "same" machine, "averages", or "wall" clocks, which are only as good as NTP.
    """

    knots: tuple[tuple[float, float], ...]
    source: str

    def to_first(self, t_ns: float) -> float:
        """Return what the clock of the first rank shows when this rank's shows `t_ns`."""
        return t_ns - self.at(t_ns)

    def at(self, t_ns: float) -> float:
        """Return the offset when this rank's clock shows `t_ns`."""
        knots = self.knots
        if len(knots) == 1:
            return knots[0][1]
        # Before the first and after the last knot the next line goes on.
        index = min(max(bisect_right(knots, (t_ns, math.inf)), 1), len(knots) - 1)
        (t0, o0), (t1, o1) = knots[index - 1], knots[index]
        return o0 + (o1 - o0) * (t_ns - t0) / (t1 - t0)


def offset_from_ends(own: Mapping[int, int], first: Mapping[int, int]) -> ClockOffset | None:
    """Return the offset by the ends of the averages that both ranks know.

    Args:
        own: When averages ended on the rank's clock, by index.
        first: The same on the first rank's.

    Returns:
        `None` if there are fewer than three.
    """
    pairs = sorted((own[index], own[index] - first[index]) for index in own.keys() & first.keys())
    if len(pairs) < MIN_EVENTS:
        return None
    parts = _parts(pairs)
    rough = ClockOffset(tuple(_knot(part) for part in parts), "averages")
    return ClockOffset(tuple(_refined(part, rough) for part in parts), "averages")


def offset_from_wall(own: tuple[int, int], first: tuple[int, int]) -> ClockOffset:
    """Return the offset by what the wall clocks show.

    Args:
        own: A moment on the rank's monotonic and on its wall clock.
        first: The same of the first rank.
    """
    offset = (own[0] - own[1]) - (first[0] - first[1])
    return ClockOffset(((float(own[0]), float(offset)),), "wall")


def _parts(pairs: Sequence[tuple[int, int]]) -> list[Sequence[tuple[int, int]]]:
    """Split into stretches of about ten minutes, at least two if there are enough events."""
    span_ns = pairs[-1][0] - pairs[0][0]
    num_parts = max(2, math.ceil(span_ns / KNOT_NS))
    num_parts = max(1, min(num_parts, len(pairs) // MIN_EVENTS_PER_KNOT))
    bounds = [round(len(pairs) * part / num_parts) for part in range(num_parts + 1)]
    return [pairs[low:high] for low, high in pairwise(bounds)]


def _knot(part: Sequence[tuple[int, int]]) -> tuple[float, float]:
    # The middle of the times fits the middle of the offsets, since these move in one direction.
    return statistics.median(t for t, _ in part), statistics.median(offset for _, offset in part)


def _refined(part: Sequence[tuple[int, int]], rough: ClockOffset) -> tuple[float, float]:
    # Beside the drift within a stretch, ends that a rank has noticed late stand out.
    at_ns = statistics.median(t for t, _ in part)
    return at_ns, rough.at(at_ns) + statistics.median(o - rough.at(t) for t, o in part)
