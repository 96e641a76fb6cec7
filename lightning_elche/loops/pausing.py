"""Ranks that wait together, without a collective, until nobody wants them to any more."""

from __future__ import annotations

import time
from collections.abc import Callable

from lightning_elche.control.events import AveragingEvent
from lightning_elche.coordination.stopping.run_control import RunControl
from lightning_elche.distributed.collectives import Collectives
from lightning_elche.distributed.control_store import ControlStore
from lightning_elche.exceptions import PeerLost

__all__ = ["Pause"]

POLL_S, BEAT_PERIOD_S = 0.2, 1.0
LOST = (
    "Rank {} has not been heard of for {:g} seconds of a pause. It has ended or hangs; raise "
    "`timeout_s` if a rank may be suspended for that long."
)


class Pause:
    """Lets the ranks of a run wait.

    Args:
        control: What this rank was asked for.
        store: Of the run.
        collectives: Knows the ranks.
        timeout_s: How long another rank may be silent.
        sleep: Waits for so many seconds.
    """

    def __init__(
        self,
        control: RunControl,
        store: ControlStore,
        collectives: Collectives,
        *,
        timeout_s: float,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._control, self._store, self._sleep = control, store, sleep
        self._rank, self._world_size = collectives.rank, collectives.world_size
        self._timeout_s = timeout_s

    def wait_out(self, event: AveragingEvent) -> None:
        """Wait until all ranks that have asked for it withdraw that, or one wants to stop.

        Args:
            event: At which they have asked; every rank calls this after it.

        Raises:
            PeerLost: If a rank is silent for too long.
            RankFailed: If another rank has failed.
        """
        control, store = self._control, self._store
        askers = [rank for rank, report in enumerate(event.reports) if report.pause]
        is_asking, released = self._rank in askers, f"released/{event.index}"
        beats = _Beats(
            store, f"paused/{event.index}", self._rank, self._world_size, self._timeout_s
        )
        control.is_paused = True
        try:
            while True:
                if is_asking and not control.pause:
                    is_asking = False
                    store.add(released, 1)
                if control.stop:
                    store.hurry()
                store.raise_if_failed(at_once=True)
                if store.is_hurried or store.add(released, 0) >= len(askers):
                    return
                beats.exchange(control.clock())
                self._sleep(POLL_S)
        finally:
            control.is_paused = False


class _Beats:
    """Counters by which ranks that wait see that the others are still there."""

    def __init__(
        self, store: ControlStore, key: str, rank: int, world_size: int, timeout_s: float
    ) -> None:
        self._store, self._key, self._rank = store, key, rank
        self._timeout_s = timeout_s
        self._next = 0.0
        self._seen: dict[int, tuple[int, float]] = {}
        self._others = [other for other in range(world_size) if other != rank]

    def exchange(self, now: float) -> None:
        """Count up, and look at the others; once a second."""
        if now < self._next:
            return
        self._next = now + BEAT_PERIOD_S
        self._store.add(f"{self._key}/{self._rank}", 1)
        for other in self._others:
            present = self._store.add(f"{self._key}/{other}", 0)
            count, since = self._seen.get(other, (-1, now))
            if present != count:
                self._seen[other] = (present, now)
            elif now - since > self._timeout_s:
                raise PeerLost((other,), LOST.format(other, self._timeout_s))
