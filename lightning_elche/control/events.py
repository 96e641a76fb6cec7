"""The outcome of one averaging event, as callbacks and loggers see it."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_elche.control.guard import GuardAction
from lightning_elche.control.reports import Report, divergence_of
from lightning_elche.control.requests import StopCause, first_cause
from lightning_elche.control.schedule import Plan

__all__ = ["FROM_CHECKPOINT", "NOT_RESTORED", "AveragingEvent"]

NOT_RESTORED, FROM_CHECKPOINT = -1, -2


@dataclass(frozen=True, kw_only=True)
class AveragingEvent:
    """What happened when the ranks met.

    All but the fields marked (own) are equal on every rank.

    Attributes:
        index: Number of the event, from 0.
        epoch: Epoch in which it took place.
        global_step: Optimizer steps of all ranks, this window included.
        epoch_batches: Batches that all ranks have trained in this epoch.
        reports: The reports of all ranks, in rank order.
        plan: The plan of the next window.
        action: What the convergence guard decided.
        wait_ms: Time this rank waited for its peers (own).
        transfer_ms: Time this rank spent exchanging parameters (own).
        exchanged_bytes: Size of what was averaged, as it travelled; 0 if nobody had anything to
            contribute.
        saved_bytes: By how much compression made it smaller.
        exchanged_ns: When the exchange ended, on this rank's `time.perf_counter_ns` (own); 0 if
            there was none.
        is_aligned: Whether all ranks are at this event now, with equal parameters. With
            `backend="cpu"` most events are over before a rank takes notice, and it trains on; with
            `group="node"` nodes still differ after an event inside them.
        crossed_nodes: Whether replicas of all nodes were averaged, rather than those of each.
        restored_event: The earlier event to whose outcome all ranks have gone back, since no rank's
            parameters were sound; -1 if there was no need to, -2 if they took a checkpoint.

    Example:
        >>> from lightning.pytorch import Callback
        >>> class TellsAnchor(Callback):
        ...     def on_average_end(self, event: AveragingEvent) -> None:
        ...         print(f"step {event.global_step}: next anchor {event.plan.anchor}")
    """

    index: int
    epoch: int
    global_step: int
    epoch_batches: int
    reports: tuple[Report, ...]
    plan: Plan
    action: GuardAction
    wait_ms: float
    transfer_ms: float
    exchanged_bytes: int
    saved_bytes: int = 0
    exchanged_ns: int = 0
    is_aligned: bool = True
    crossed_nodes: bool = True
    restored_event: int = NOT_RESTORED

    @property
    def is_epoch_complete(self) -> bool:
        """Whether no rank has data left in this epoch."""
        return all(report.is_drained for report in self.reports)

    @property
    def should_stop(self) -> bool:
        """Whether a rank's Trainer was asked to stop."""
        return any(report.should_stop for report in self.reports)

    @property
    def stop(self) -> StopCause:
        """Why the run ends here, `NONE` if it does not."""
        return first_cause(report.stop for report in self.reports)

    @property
    def pause(self) -> bool:
        """Whether a rank wants all to wait at the end of the event."""
        return any(report.pause for report in self.reports)

    @property
    def checkpoint(self) -> bool:
        """Whether a rank wants a checkpoint to be saved after the event."""
        return any(report.checkpoint for report in self.reports)

    @property
    def failed_rank(self) -> int | None:
        """The first rank that has raised an error and ends the run, if one has."""
        failed = (rank for rank, own in enumerate(self.reports) if own.stop is StopCause.FAILURE)
        return next(failed, None)

    @property
    def optimizer_steps(self) -> int:
        """Optimizer steps of all ranks in this window."""
        return sum(report.optimizer_steps for report in self.reports)

    @property
    def idle_ratio(self) -> float:
        """Part of the ranks' time that was spent waiting at the event before this one."""
        wait = sum(report.wait_ms for report in self.reports)
        busy = sum(report.compute_ms + report.transfer_ms for report in self.reports)
        return wait / (wait + busy) if wait + busy else 0.0

    @property
    def overhead_ratio(self) -> float:
        """Cost of exchanging parameters relative to the longest compute time of the window."""
        busiest = max(report.compute_ms for report in self.reports)
        transfer = max(report.transfer_ms for report in self.reports)
        return transfer / busiest if busiest else 0.0

    @property
    def divergence(self) -> float:
        """Largest relative distance of a replica to the average at the event before this one.

        NaN at the first event of a run.
        """
        return divergence_of(self.reports)
