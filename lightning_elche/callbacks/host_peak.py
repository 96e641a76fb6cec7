"""What a run does about hours in which others need the machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightning_elche.callbacks.run_events import emit
from lightning_elche.coordination.schedule.peak import PeakHours

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from lightning_elche.coordination.schedule.schedule import ScheduleConfig

__all__ = ["PeakGuard"]

POLL_S = 0.5


class PeakGuard:
    """Compares peak hours with how long a run will take.

    Args:
        config: The hours, and what follows from them.
        now: Returns the time, in seconds since 1970.
        sleep: Waits for so many seconds.
    """

    def __init__(
        self,
        config: ScheduleConfig,
        *,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._policy = config.peak_policy
        self._peak = None if config.peak is None else PeakHours.parse(config.peak)
        self._now, self._sleep = now, sleep

    @property
    def throttles(self) -> bool:
        """Whether the run is throttled in these hours."""
        return self._peak is not None and self._policy == "throttle"

    def is_peak(self) -> bool:
        """Return whether these hours are now."""
        return self._peak is not None and self._peak.is_peak(self._now())

    def begin(self, trainer: Trainer, p90_s: float, *, stops: Callable[[], bool]) -> None:
        """Warn of an overlap, or wait until it is over; every rank calls this at the same point.

        Args:
            trainer: About to train.
            p90_s: How long the run will take, in nine of ten cases.
            stops: Returns whether the run is to end instead.
        """
        if self._peak is None:
            return
        # Rank 0 says until when, for clocks differ; then each waits without communication.
        until = trainer.strategy.broadcast(self._end_of_overlap(p90_s))
        if until is None:
            return
        emit("alert", message="The run would last into peak hours.", until=until)
        hours = f"{p90_s / 3600.0:.3g} hours"
        if self._policy == "warn":
            rank_zero_warn(
                f"This run may take {hours} and last into peak hours. `peak_policy='wait'` or "
                "'throttle' makes room for others."
            )
        elif self._policy == "wait":
            rank_zero_info(
                f"This run may take {hours} and last into peak hours. It waits for "
                f"{until - self._now():.0f} seconds, until they are over."
            )
            while (left_s := until - self._now()) > 0.0 and not stops():
                self._sleep(min(left_s, POLL_S))

    def _end_of_overlap(self, p90_s: float) -> float | None:
        assert self._peak is not None
        now = self._now()
        if not self._peak.overlaps(now, p90_s):
            return None
        begins = now + self._peak.seconds_until(now, is_peak=True)
        return begins + self._peak.seconds_until(begins, is_peak=False)
