"""Averaging rounds that stop nobody: replicas are exchanged while the ranks train on."""

from __future__ import annotations

import enum
import math
import threading
import time
from collections.abc import Callable

from typing_extensions import Unpack, override

from lightning_elche.control.events import AveragingEvent
from lightning_elche.control.reports import Report
from lightning_elche.control.requests import Requests
from lightning_elche.control.schedule import Window
from lightning_elche.distributed.ballot import Ballot
from lightning_elche.distributed.polling import pauses
from lightning_elche.distributed.rounds import NO_REQUESTS, NOT_IN_TIME, Rounds
from lightning_elche.distributed.rounds_parts import RoundsParts
from lightning_elche.exceptions import PeerLost

__all__ = ["SnapshotRounds"]

MIN_POLL_S, MAX_POLL_S = 0.0002, 0.01


class _Phase(enum.Enum):
    IDLE = "idle"
    COLLECTING = "collecting"
    COMPUTING = "computing"


class SnapshotRounds(Rounds):
    """Rounds whose events take place in the background.

    Once all ranks agree, each takes a snapshot at its next step boundary and trains on. When all
    snapshots are there, a thread exchanges them; at the step boundary after that the rank adds
    `average - snapshot` to its parameters, so that no step is lost. An attempt for which a snapshot
    comes too late is dropped by all ranks and repeated. `average` still meets all ranks at once.

    Args:
        snapshot_timeout_s: How long a rank waits for the snapshots of the others, in seconds.
        **parts: As of `Rounds`.
    """

    def __init__(self, *, snapshot_timeout_s: float, **parts: Unpack[RoundsParts]) -> None:
        super().__init__(**parts)
        self._ballot = Ballot(
            parts["store"],
            world_size=parts["collectives"].world_size,
            patience_s=snapshot_timeout_s,
            timeout_s=parts["timeout_s"],
        )
        self._phase = _Phase.IDLE
        self._num_dropped = 0

    @override
    def meet_if_due(
        self, *, is_drained: bool, requests: Requests = NO_REQUESTS
    ) -> AveragingEvent | None:
        """Go on with the averaging event under way, and return it once it is over.

        Args:
            is_drained: As of `Rounds`.
            requests: As of `Rounds`.

        Raises:
            PeerLost: If a rank does not take part within the timeout.
            RankFailed: If another rank has failed.
            RankMismatch: If ranks work on different epochs.
        """
        if self._phase is _Phase.IDLE and self.is_due(is_drained=is_drained, requests=requests):
            self._take_snapshot(self._report(is_drained, requests))
        if self._phase is _Phase.COLLECTING:
            self._start_exchange_if_complete()
        if self._phase is _Phase.COMPUTING and self._is_to_be_applied():
            return self._apply()
        self._store.raise_if_failed()
        return None

    @override
    def wait_for_event(
        self, *, ask: Callable[[], Requests] = Requests, wait_s: float = math.inf
    ) -> AveragingEvent:
        naps = pauses(MIN_POLL_S, MAX_POLL_S)
        deadline = time.monotonic() + wait_s
        while time.monotonic() < deadline:
            event = self.meet_if_due(is_drained=True, requests=ask())
            if event is not None:
                return event
            self.window.waited_s += next(naps)
        raise PeerLost((), NOT_IN_TIME.format(wait_s))

    @override
    def describe(self) -> dict[str, object]:
        return {**super().describe(), "phase": self._phase.value, "dropped": self._num_dropped}

    @override
    def _patience_s(self, window: Window) -> float:
        del window
        return 0.0  # nobody waits for this rank either

    def _take_snapshot(self, own: Report) -> None:
        began = time.perf_counter()
        self._own = own
        self._replica.load(self._plan.index)
        self._snapshot_ms = 1000.0 * (time.perf_counter() - began)
        if not self._script.is_followed:
            self._ballot.join(self._plan.index)
        self._phase = _Phase.COLLECTING

    def _is_to_be_applied(self) -> bool:
        if self._script.is_followed:  # and if the average is not there yet, it is waited for
            return self._script.is_applied(self._plan.index, self.window.batches)
        return not self._thread.is_alive()

    def _start_exchange_if_complete(self) -> None:
        is_complete = self._script.is_followed or self._ballot.is_complete()
        if is_complete is None:
            return
        if not is_complete:
            self._phase = _Phase.IDLE  # and another snapshot at the next step boundary
            return
        self._error: BaseException | None = None
        self._thread = threading.Thread(
            target=self._exchange_snapshots, name="elche-exchange", daemon=True
        )
        self._thread.start()
        self._phase = _Phase.COMPUTING

    def _exchange_snapshots(self) -> None:
        try:
            # Order on every rank: reports, parameters, optimizer states.
            self._reports = self._gather(self._own)
            crosses = self._plan.crosses_nodes
            self._pending = self._exchange_replicas(self._reports, crosses_nodes=crosses)
        except BaseException as err:  # raised by the training thread
            self._error, self.is_meeting = err, True

    def _apply(self) -> AveragingEvent:
        self._thread.join()
        self._phase = _Phase.IDLE
        if self._error is not None:
            raise self._error
        began = time.perf_counter()
        self._reports = self._script.event(self._plan.index, self.window.batches, self._reports)
        self._exchange = self._pending
        # A rank that did not step, or is spoiled, takes the average as it is, to the last bit.
        has_stepped = self.window.batches > self._own.batches
        self._replica.store(adds_difference=has_stepped and not self._own.sits_out)
        if self._own.sits_out:
            self.window.forget(self.window.batches - self._own.batches)
        if not self._script.is_followed:
            self._num_dropped += self._ballot.close(self.rank)
        applied_ms = 1000.0 * (time.perf_counter() - began)
        self._cost_ms = (1000.0 * self.window.waited_s, self._snapshot_ms + applied_ms)
        self.window.subtract(self._own)
        crossed = self._plan.crosses_nodes
        return self._close(self._reports, crossed_nodes=crossed, is_aligned=False)
