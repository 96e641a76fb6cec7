"""Averaging rounds: the life of one rank between and at averaging events, without Lightning."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, replace

from lightning_elche.control.controller import Controller
from lightning_elche.control.epoch_metrics import EpochMetrics, EpochTotals
from lightning_elche.control.events import NOT_RESTORED, AveragingEvent
from lightning_elche.control.reports import Report, check_epochs, weights_of
from lightning_elche.control.requests import Requests
from lightning_elche.control.schedule import Plan, Readiness, Window, patience_ms, readiness
from lightning_elche.distributed.abort_watch import AbortWatch
from lightning_elche.distributed.agreement import Agreement
from lightning_elche.distributed.averager import NO_EXCHANGE, Exchange
from lightning_elche.distributed.collectives import Collectives
from lightning_elche.distributed.control_store import ControlStore
from lightning_elche.distributed.recovery_watch import RecoveryWatch
from lightning_elche.distributed.replica_exchange import ReplicaExchange
from lightning_elche.distributed.rounds_parts import RoundsState, asked
from lightning_elche.distributed.scripts import Script
from lightning_elche.distributed.throttle import Throttle
from lightning_elche.distributed.timing import StepTimer
from lightning_elche.distributed.window import WindowTracker
from lightning_elche.exceptions import PeerLost

__all__ = ["NOT_IN_TIME", "NO_REQUESTS", "Rounds"]

NO_REQUESTS = Requests()
ASK_PERIOD_S = 0.5
NOT_IN_TIME = "The other ranks did not agree to average within {:g} seconds."


class Rounds:
    """Counts this rank's steps, finds out when all ranks agree to meet, and averages.

    Per step: `window.begin_step`, the step itself, `window.end_step`, then `meet_if_due`. A rank
    without data calls `wait_for_event`. The only traffic between two events is one store
    operation per step after the rank has agreed to meet.

    Args:
        controller: The replicated controller.
        collectives: How to exchange.
        store: How to agree without waiting.
        replica: What to exchange.
        timer: How to time steps.
        timeout_s: Longest wait for a peer in seconds.
        max_batch_diff: Steps that a rank may be ahead of the slowest; `None` for no limit.
        script: May say when ranks have met in another run.
    """

    def __init__(
        self,
        *,
        controller: Controller,
        collectives: Collectives,
        store: ControlStore,
        replica: ReplicaExchange,
        timer: StepTimer,
        timeout_s: float,
        max_batch_diff: int | None = None,
        script: Script | None = None,
    ) -> None:
        self.controller = controller
        self.global_step = 0
        self.is_meeting = False  # also after a failure there: nothing more would pair up
        self._collectives = collectives
        self._store = store
        self._replica = replica
        self._script = script or Script()
        self.window = WindowTracker(timer)
        self._totals = EpochTotals(collectives.world_size)
        self._exchange = NO_EXCHANGE
        self._cost_ms, self._epoch = (0.0, 0.0), 0
        self._epoch_metrics: EpochMetrics | None = None
        rank, world_size = collectives.rank, collectives.world_size
        self.aborts = AbortWatch(store, rank)
        self.recovery = RecoveryWatch(replica, rank)
        self._agreement = Agreement(store, rank=rank, world_size=world_size, timeout_s=timeout_s)
        self.throttle: Throttle | None = None
        if max_batch_diff is not None:
            self.throttle = Throttle(
                store, rank=rank, world_size=world_size, max_batch_diff=max_batch_diff
            )
        self._start_window()
        self.window.reset()

    @property
    def rank(self) -> int:
        """This rank."""
        return self._collectives.rank

    @property
    def plan(self) -> Plan:
        """The agreed plan of the present window."""
        return self._plan

    @property
    def epoch_batches(self) -> int:
        """Batches that all ranks had trained in this epoch at the last event."""
        return self._totals.batches

    @property
    def epoch_metrics(self) -> EpochMetrics | None:
        """The metrics of the last complete epoch."""
        return self._epoch_metrics

    def begin_epoch(self, epoch: int, *, batches: int = 0, before: int = 0) -> None:
        """Start counting a new epoch; every rank calls this before its first step.

        Args:
            epoch: Its index.
            batches: Batches that all ranks train in it, 0 where each has a stream of its own.
            before: Those of them that were trained in another run.

        Raises:
            RankMismatch: If ranks froze different parameters.
        """
        self._epoch = epoch
        self._totals.reset(before=before)
        self._plan = self.controller.open_epoch(batches)
        self._replica.averager.select_trainable()

    def meet_if_due(
        self, *, is_drained: bool, requests: Requests = NO_REQUESTS
    ) -> AveragingEvent | None:
        """Average with all ranks if all agree to; called after every step.

        Args:
            is_drained: This rank has no data left in the epoch.
            requests: What this rank asks of all.

        Raises:
            PeerLost: If a rank has not agreed within the timeout.
            RankFailed: If another rank has failed.
            RankMismatch: If ranks work on different epochs.
        """
        if not self.is_due(is_drained=is_drained, requests=requests):
            return None
        own = self._report(is_drained, requests)
        return self._meet(own, crosses_nodes=self._plan.crosses_nodes)

    def wait_for_event(
        self, *, ask: Callable[[], Requests] = Requests, wait_s: float = math.inf
    ) -> AveragingEvent:
        """Wait, without data, until all ranks agree to average, and do so.

        Args:
            ask: Returns what this rank asks of all, which may change meanwhile.
            wait_s: How long to wait for agreement at most, in seconds, within the timeout.

        Raises:
            PeerLost: If they do not agree in time.
            RankFailed: If another rank has failed.
            RankMismatch: If ranks work on different epochs.
        """
        deadline = time.perf_counter() + wait_s
        while not self.is_due(is_drained=True, requests=ask()) and not self._wait(ASK_PERIOD_S):
            if time.perf_counter() > deadline:
                raise PeerLost((), NOT_IN_TIME.format(wait_s))
        return self._meet(self._report(True, ask()), crosses_nodes=self._plan.crosses_nodes)

    def is_due(self, *, is_drained: bool = False, requests: Requests = NO_REQUESTS) -> bool:
        """Return whether all ranks agree to meet; may wait a moment for the slowest rank.

        A rank that asks for the end of the run agrees at once, and so do the others, as soon as
        they hear of it.

        Raises:
            PeerLost: If a rank has not agreed within the timeout.
            RankFailed: If another rank has failed.
        """
        window = self.window.progress(is_drained=is_drained)
        if requests.is_urgent or self.aborts.is_pending:
            self._store.hurry()
        if self._script.is_followed and not self._store.is_hurried:
            self._store.raise_if_failed()
            return self._script.is_due(self._plan.index, self.window.batches)
        if not self._agreement.is_posted:
            self._readiness = readiness(self._plan, self.rank, window)
            if self._readiness is Readiness.NOT_READY:
                self._store.raise_if_failed()
                if not self._store.is_hurried:
                    return False
                self._readiness = Readiness.HURRIED
            self._agreement.post()
            self._agreed_after_ms = 1000.0 * (time.perf_counter() - self._window_began)
        if window.is_accumulating and not is_drained:
            return False
        if self._agreement.is_reached():
            return True
        return self._wait(self._patience_s(window))

    def average(self, *, is_drained: bool, requests: Requests = NO_REQUESTS) -> AveragingEvent:
        """Meet all ranks now and average over all nodes; every rank calls this at the same point.

        Args:
            is_drained: This rank has no data left in the epoch.
            requests: What this rank asks of all.

        Raises:
            RankMismatch: If ranks work on different epochs.
        """
        return self._meet(self._report(is_drained, requests), crosses_nodes=True)

    def close_epoch(self) -> EpochMetrics:
        """Return the metrics of the epoch; every rank calls this after its last event."""
        costs = self._collectives.gather(self._cost_ms)
        self._totals.add_costs([(wait, transfer) for wait, transfer in costs])
        self._epoch_metrics = self._totals.metrics(self._epoch)
        return self._epoch_metrics

    def gather(self, number: float) -> list[float]:
        """Return the `number` of each rank; every rank calls this at the same point."""
        return [part[0] for part in self._collectives.gather([number])]

    def describe(self) -> dict[str, object]:
        """Return what this rank knows at present; JSON-serialisable."""
        return {
            "rank": self.rank,
            "epoch": self._epoch,
            "epoch_batches": self.epoch_batches,
            "global_step": self.global_step,
            "plan": asdict(self._plan),
            "window": {**self.window.describe(), "has_agreed": self._agreement.is_posted},
            "guard": {
                "action": self.controller.action.name,
                "deltas": list(self.controller.guard.deltas),
            },
            "crosses_nodes_every": self.controller.hierarchy.every,
        }

    def state_dict(self) -> RoundsState:
        """Return the agreed state, equal on every rank."""
        return RoundsState(
            global_step=self.global_step,
            controller=self.controller.state_dict(),
            averager=self._replica.averager.state_dict(),
        )

    def load_state_dict(self, state: RoundsState) -> None:
        """Continue from `state`."""
        self.global_step = state["global_step"]
        self.controller.load_state_dict(state["controller"])
        self._replica.averager.load_state_dict(state["averager"])
        self._start_window()
        self.window.reset()

    def _report(self, is_drained: bool, requests: Requests) -> Report:
        if not requests.abstains:
            self.recovery.settle()
        window = self.window.report()
        own = replace(
            window,
            weight=0.0 if requests.abstains else window.weight,
            epoch=self._epoch,
            wait_ms=self._cost_ms[0],
            transfer_ms=self._cost_ms[1],
            relative_delta=self._exchange.relative_delta,
            readiness=self._readiness,
            agreed_after_ms=self._agreed_after_ms,
            optimizer_layout=self._replica.optimizer_layout(),
            is_drained=is_drained,
        )
        return self.aborts.sign(self.recovery.sign(asked(own, requests)))

    def _meet(self, own: Report, *, crosses_nodes: bool) -> AveragingEvent:
        """Meet all ranks: exchange reports, average parameters, derive the next plan."""
        self.is_meeting, entered = True, time.perf_counter()
        # Order on every rank: reports, parameters, optimizer states.
        reports = self._script.event(self._plan.index, self.window.batches, self._gather(own))
        gathered = time.perf_counter()
        self._replica.load(self._plan.index)
        self._exchange = self._exchange_replicas(reports, crosses_nodes=crosses_nodes)
        self._replica.store(adds_difference=False)
        transferred = time.perf_counter()
        wait_ms = 1000.0 * (gathered - entered + self.window.waited_s)
        self._cost_ms = (wait_ms, 1000.0 * (transferred - gathered))
        self.window.reset()
        self.is_meeting = False
        return self._close(reports, crossed_nodes=crosses_nodes, is_aligned=crosses_nodes)

    def _exchange_replicas(self, reports: list[Report], *, crosses_nodes: bool) -> Exchange:
        weights = self.controller.hierarchy.weights(
            weights_of(reports), self.rank, crosses=crosses_nodes
        )
        return self._replica.exchange(reports, weights, crosses_nodes=crosses_nodes)

    def _gather(self, own: Report) -> list[Report]:
        reports = [Report.from_vector(part) for part in self._collectives.gather(own.to_vector())]
        check_epochs(reports)
        self.aborts.act_on(reports)
        return reports

    def _patience_s(self, window: Window) -> float:
        return patience_ms(self._plan, self.rank, window) / 1000.0

    def _start_window(self) -> None:
        self._plan = self.controller.plan
        self._store.start_window(self._plan.index)
        # Every rank has read the last agreement before its report was gathered.
        self._agreement.start(self._plan.index)
        if self.throttle is not None:
            self.throttle.start(self._plan.index)
        self._readiness = Readiness.NOT_READY
        self._agreed_after_ms = 0.0
        self._window_began: float = time.perf_counter()

    def _wait(self, wait_s: float) -> bool:
        began = time.perf_counter()
        try:
            return self._agreement.wait(wait_s)
        finally:
            self.window.waited_s += time.perf_counter() - began

    def _close(
        self, reports: list[Report], *, crossed_nodes: bool, is_aligned: bool
    ) -> AveragingEvent:
        index = self._plan.index
        self._totals.add(reports)
        self.global_step += sum(report.optimizer_steps for report in reports)
        self.controller.report(reports, crossed=crossed_nodes)
        restored_event = self.recovery.act_on(
            reports, self._exchange, index=index, crossed_nodes=crossed_nodes
        )
        if restored_event != NOT_RESTORED:
            self._exchange, self.window.sits_out = NO_EXCHANGE, False
        elif self.recovery.remains_out(reports):
            self.window.sits_out = True
        self._start_window()
        return AveragingEvent(
            index=index,
            epoch=self._epoch,
            global_step=self.global_step,
            epoch_batches=self._totals.batches,
            reports=tuple(reports),
            plan=self._plan,
            action=self.controller.action,
            wait_ms=self._cost_ms[0],
            transfer_ms=self._cost_ms[1],
            exchanged_ns=self._exchange.ended_ns,
            exchanged_bytes=self._exchange.exchanged_bytes,
            saved_bytes=self._exchange.saved_bytes,
            is_aligned=is_aligned,
            crossed_nodes=crossed_nodes,
            restored_event=restored_event,
        )
