"""Whether a run moves on, and whether it trains; pure."""

from __future__ import annotations

import itertools
import statistics
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lightning_elche.coordination.lifecycle import LifecycleStats, RunState, is_healthy

__all__ = ["Health", "Pulse", "healthz", "is_ready", "summary"]

STARTUP_S = 1800.0
SILENT_S, SILENT_BATCHES = 10.0, 10
REMEMBERED = 101


@dataclass(frozen=True, kw_only=True)
class Health:
    """Whether something is well.

    Attributes:
        ok: Whether it is.
        reason: In words, with the numbers.
    """

    ok: bool
    reason: str


class Pulse:
    """The beat of the main loop: when a batch ended last, and how long batches take.

    A beat costs less than a microsecond. It is read from other threads.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.began = self._touched = clock()
        self.beats = 0
        self._times: deque[float] = deque(maxlen=REMEMBERED)

    def beat(self) -> None:
        """Take in that a batch has ended."""
        self._times.append(self._clock())
        self.beats += 1

    def touch(self) -> None:
        """Take in that the main loop is alive, beside batches, whose times are not told by it."""
        self._touched = self._clock()

    @property
    def age_s(self) -> float:
        """Seconds since the last beat, or since the begin."""
        times = self._times.copy()  # at once: another thread may add
        return self._clock() - max(times[-1] if times else self._touched, self._touched)

    @property
    def uptime_s(self) -> float:
        """Seconds since the begin."""
        return self._clock() - self.began

    def median_s(self) -> float:
        """Return what a batch takes, the median of the last hundred; 0.0 before the second."""
        times = self._times.copy()
        taken = [later - earlier for earlier, later in itertools.pairwise(times)]
        return statistics.median(taken) if taken else 0.0


def healthz(state: RunState, *, beats: int, age_s: float, median_s: float) -> Health:
    """Return whether a run should be left alone by whoever restarts runs that hang.

    While it runs, its main loop beats within 10 seconds, or 10 batches where those are longer. Up
    to the first batch it has 1800 seconds. A run that pauses or comes to its end is well.

    Args:
        state: Of the run.
        beats: How many there were.
        age_s: Seconds since the last one, or since the begin.
        median_s: What a batch takes.
    """
    if state is RunState.ERROR:
        return Health(ok=False, reason="the run has failed")
    if state in (RunState.PAUSED, RunState.DRAINING, RunState.STOPPED):
        return Health(ok=True, reason=f"the run is {state.name}")
    if not beats:
        return Health(
            ok=age_s <= STARTUP_S,
            reason=f"no batch yet, {age_s:.0f} of {STARTUP_S:.0f} seconds after the begin",
        )
    limit_s = max(SILENT_S, SILENT_BATCHES * median_s)
    return Health(
        ok=age_s <= limit_s,
        reason=f"the last batch ended {age_s:.1f} seconds ago, at most {limit_s:.1f} are usual",
    )


def is_ready(state: RunState) -> bool:
    """Return whether a run trains, or pauses and would."""
    return state in (RunState.RUNNING, RunState.PAUSED)


def summary(
    state: RunState, health: Health, components: Sequence[LifecycleStats]
) -> dict[str, object]:
    """Return how a run and its parts are; it is healthy if all of them are.

    Args:
        state: Of the run.
        health: As `healthz` says.
        components: Its parts.
    """
    parts = {one.name: _part(one, state) for one in components}
    return {
        "healthy": health.ok and all(part["health"] == "OK" for part in parts.values()),
        "reason": health.reason,
        "state": state.name,
        "stopping": state is RunState.DRAINING,
        "components": parts,
    }


def _part(stats: LifecycleStats, run: RunState) -> dict[str, object]:
    """Return what is known of a part; one that has ended with its run is as well as that."""
    state = RunState[stats.state]
    is_failed = state is RunState.ERROR
    if state is RunState.STOPPED and run in (RunState.DRAINING, RunState.STOPPED):
        state = RunState.READY
    is_well = is_healthy(state, operations=stats.operations, errors=stats.errors)
    return {
        **stats.to_dict(),
        "health": "OK" if is_well else "ERROR" if is_failed else "DEGRADED",
    }
