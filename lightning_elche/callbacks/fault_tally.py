"""How many batches each rank has not learnt, and how often each was left out of an average."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning_elche.control.reports import Report

__all__ = ["FaultTally"]


class FaultTally:
    """Adds up what ranks report; equal on every rank.

    Args:
        world_size: Number of ranks.
    """

    def __init__(self, world_size: int) -> None:
        self.skipped = [0] * world_size
        self.sat_out = [0] * world_size
        self.healed = [0] * world_size

    def add(self, reports: Sequence[Report]) -> None:
        """Take in an averaging event.

        Args:
            reports: Those of all ranks.
        """
        for rank, report in enumerate(reports):
            self.skipped[rank] += report.skipped
            is_sound = not (report.is_drained or report.sits_out or report.stop)
            self.sat_out[rank] += report.weight == 0.0 and is_sound
            self.healed[rank] += report.sits_out

    def line(self) -> str:
        """Return what happened in a sentence, nothing if nothing did."""
        parts = (
            (self.skipped, "batches skipped for want of memory"),
            (self.sat_out, "averaging events without a say for it"),
            (self.healed, "averaging events without a say, since parameters were not finite"),
        )
        told = [f"{counts} {what}" for counts, what in parts if any(counts)]
        return f"Faults by rank: {'; '.join(told)}." if told else ""
