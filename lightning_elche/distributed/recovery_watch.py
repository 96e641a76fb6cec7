"""Lets spoiled ranks be repaired at an averaging event: each alone, or all together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lightning_elche.control.events import FROM_CHECKPOINT, NOT_RESTORED
from lightning_elche.control.reports import Report, common_event, weights_of
from lightning_elche.distributed.averager import AveragerState, Exchange
from lightning_elche.distributed.replica_exchange import ReplicaExchange
from lightning_elche.typing import RecoverySource

__all__ = ["RecoveryWatch"]

NOTHING_LEFT = (
    "No rank's parameters are sound at averaging event {}, and there is no earlier event that all "
    "ranks could go back to"
)


class RecoveryWatch:
    """Asks this rank's recovery source, if it has one, and lets it act with those of all ranks.

    Args:
        replica: The replica of this rank.
        rank: This rank.

    Attributes:
        source: Repairs this rank.
        holds_anchor: This rank does not want windows to become longer.
    """

    def __init__(self, replica: ReplicaExchange, rank: int) -> None:
        self.source: RecoverySource | None = None
        self.holds_anchor = False
        self._replica = replica
        self._rank = rank

    def settle(self) -> None:
        """Repair this rank before it reports."""
        if self.source is not None:
            self.source.settle()

    def sign(self, own: Report) -> Report:
        """Return the rank's report with what it can restore."""
        event = -1 if self.source is None else self.source.restorable_event()
        return replace(own, restorable_event=event, holds_anchor=self.holds_anchor)

    def act_on(
        self, reports: Sequence[Report], exchange: Exchange, *, index: int, crossed_nodes: bool
    ) -> int:
        """Go back to an earlier event with all ranks if this one left no sound parameters.

        Args:
            reports: Those of all ranks.
            exchange: What became of the parameters.
            index: Of the present event.
            crossed_nodes: Whether all ranks know what became of them.

        Returns:
            The event that was restored, or as of `AveragingEvent.restored_event`.
        """
        has_weight = any(weights_of(reports))
        is_lost = not has_weight and any(report.sits_out for report in reports)
        is_spoiled = has_weight and crossed_nodes and not exchange.is_finite
        if self.source is None or not (is_lost or is_spoiled):
            return NOT_RESTORED
        event = common_event(reports)
        if event >= 0:
            self.source.restore_event(event)
        elif self.source.restore_saved():
            event = FROM_CHECKPOINT
        else:
            if not any(report.stop for report in reports):
                self.source.halt(NOTHING_LEFT.format(index))
            return NOT_RESTORED
        # Parameters are equal again, and what was kept for the next average is of the spoiled one.
        self._replica.averager.load_state_dict(AveragerState(momentum={}))
        return event

    def remains_out(self, reports: Sequence[Report]) -> bool:
        """Return whether this rank has sat out and found no average to adopt.

        Args:
            reports: Those of all ranks.
        """
        return reports[self._rank].sits_out and not self._replica.has_average
