"""Where a quantity is going: how fast it grows, and when it is used up."""

from __future__ import annotations

from collections import deque

__all__ = ["Trend"]

UNSETTLED = 2.0  # of the past that is forgotten by a factor of e, in samples times their weight


class Trend:
    """A line through the recent samples of a quantity, told only if they lie close to one.

    Samples are smoothed first, and the first ones left out, in which that has hardly begun to
    follow. Cost: O(1) a sample, O(samples in the window) a question.

    Args:
        window_s: Seconds that the line covers.
        ema: Weight of a new sample in the smoothed one.
        min_samples: How many it takes.
        min_r2: How well the line must explain them, as the coefficient of determination.

    Example:
        >>> trend = Trend()
        >>> for second in range(30):
        ...     trend.add(float(second), 1000.0 - 10.0 * second)
        >>> round(trend.time_to_zero_s() or 0.0)
        72
    """

    def __init__(
        self,
        *,
        window_s: float = 600.0,
        ema: float = 0.2,
        min_samples: int = 10,
        min_r2: float = 0.5,
    ) -> None:
        self._window_s, self._ema = window_s, ema
        self._min_samples, self._min_r2 = min_samples, min_r2
        self.reset()

    def reset(self) -> None:
        """Forget all samples."""
        self._samples: deque[tuple[float, float]] = deque()
        self._last = self._smooth = 0.0
        self._count = 0

    def add(self, now_s: float, value: float) -> None:
        """Take in a sample; `now_s` only grows."""
        self._smooth += (self._ema if self._count else 1.0) * (value - self._smooth)
        self._count += 1
        self._last = value
        if self._count * self._ema <= UNSETTLED:
            return
        samples = self._samples
        samples.append((now_s, self._smooth))
        while now_s - samples[0][0] > self._window_s:
            samples.popleft()

    def slope(self) -> float | None:
        """Return the growth per second; `None` if there are too few samples or no line in them."""
        samples = self._samples
        if len(samples) < self._min_samples:
            return None
        count = len(samples)
        mean_s = sum(at for at, _ in samples) / count
        mean = sum(value for _, value in samples) / count
        spread = moved = both = 0.0
        for at, value in samples:
            spread += (at - mean_s) ** 2
            moved += (value - mean) ** 2
            both += (at - mean_s) * (value - mean)
        if not (spread and moved) or both * both < self._min_r2 * spread * moved:
            return None
        return both / spread

    def time_to_zero_s(self) -> float | None:
        """Return the seconds until nothing is left; `None` if there is no such moment in sight."""
        slope = self.slope()
        if slope is None or slope >= 0.0:
            return None
        return max(self._last, 0.0) / -slope

    def __repr__(self) -> str:
        return f"Trend(samples={len(self._samples)}, last={self._last:g})"
