"""Collects steps in which nothing is amiss, so that most of the work is done for many at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from lightning_elche.contracts.records import StepRecord

__all__ = ["StepBuffer"]


class StepBuffer:
    """Hands on steps in portions; a step then costs a fraction of what it costs alone.

    Args:
        take: Takes a portion, in order.
        most: So many steps are a portion.
        within_ms: After this time fewer are one, too.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        take: Callable[[Sequence[StepRecord]], None],
        *,
        most: int,
        within_ms: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._take = take
        self._most = most
        self._within_s = within_ms / 1000.0
        self._clock = clock
        self._records: list[StepRecord] = []
        self._drained_at = clock()
        # An abort may come from the thread that exchanges parameters.
        self._lock = threading.RLock()

    def add(self, record: StepRecord) -> None:
        """Add a step, and hand on all if it is time."""
        with self._lock:
            self._records.append(record)
            is_late = self._clock() - self._drained_at >= self._within_s
            if is_late or len(self._records) >= self._most:
                self.drain()

    def drain(self) -> None:
        """Hand on what there is."""
        with self._lock:
            records, self._records = self._records, []
            self._drained_at = self._clock()
            if records:
                self._take(records)
