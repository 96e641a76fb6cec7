"""Keeps a stream of bytes to a rate."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["RateLimit"]

BURST_S = 0.1


class RateLimit:
    """A bucket of bytes that fills at the rate and holds what it brings in a tenth of a second.

    In any span of `t` seconds it lets `rate * (t + 0.1)` bytes pass, and one block more.

    Args:
        bytes_per_s: The rate.
        clock: Seconds that only grow.
        sleep: Waits for so many seconds.

    Example:
        >>> limit = RateLimit(1000.0, sleep=print, clock=lambda: 0.0)
        >>> limit.take(100)
        >>> limit.take(50)
        0.05
    """

    def __init__(
        self,
        bytes_per_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        if not bytes_per_s > 0.0:
            raise ValueError(f"`bytes_per_s` must be > 0, got {bytes_per_s}.")
        self._rate, self._clock, self._sleep = bytes_per_s, clock, sleep
        self._tokens = self._capacity = bytes_per_s * BURST_S
        self._filled_s = clock()

    @property
    def block_bytes(self) -> int:
        """A size of blocks that passes evenly: what comes in a twentieth of a second."""
        return min(max(int(self._rate / 20.0), 1), 1 << 20)

    def take(self, num_bytes: int) -> None:
        """Wait until so many bytes may pass."""
        now = self._clock()
        filled = self._tokens + (now - self._filled_s) * self._rate
        # What is missing was promised to the bytes of this call: it is paid back before the next.
        self._tokens = min(filled, self._capacity) - num_bytes
        self._filled_s = now
        if self._tokens < 0.0:
            self._sleep(-self._tokens / self._rate)
