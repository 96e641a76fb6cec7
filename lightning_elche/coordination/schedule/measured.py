"""How long something took, the last times that it was done."""

from __future__ import annotations

import math
from collections import deque

__all__ = ["Measured"]

KEPT = 200


class Measured:
    """The latest durations of one kind, of which there may be none.

    One thread adds; any may ask.

    Example:
        >>> windows = Measured()
        >>> for seconds in (1.0, 2.0, 4.0):
        ...     windows.add(seconds)
        >>> windows.count, windows.p50, windows.p95, windows.longest
        (3, 2.0, 4.0, 4.0)
    """

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=KEPT)
        self.count = 0

    def add(self, seconds: float) -> None:
        """Take in a duration."""
        self._seconds.append(seconds)
        self.count += 1

    @property
    def p50(self) -> float:
        """The median, 0 if there are none."""
        return self.quantile(0.5)

    @property
    def p95(self) -> float:
        """What 95 % of them do not exceed, 0 if there are none."""
        return self.quantile(0.95)

    @property
    def longest(self) -> float:
        """The longest, 0 if there are none."""
        return self.quantile(1.0)

    def quantile(self, part: float) -> float:
        """Return the shortest duration that a part of them do not exceed, 0 if there are none."""
        seconds = sorted(self._seconds.copy())  # at once: another thread may add
        if not seconds:
            return 0.0
        return seconds[max(math.ceil(part * len(seconds)) - 1, 0)]

    def summary(self) -> dict[str, float]:
        """Return what a status shows."""
        return {"count": self.count, "p50_s": round(self.p50, 6), "p95_s": round(self.p95, 6)}

    def __repr__(self) -> str:
        return f"Measured(count={self.count}, p50={self.p50:g}, p95={self.p95:g})"
