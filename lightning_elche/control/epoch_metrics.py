"""What one epoch amounted to, over all ranks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lightning_elche.control.reports import Report

__all__ = ["EpochMetrics", "EpochTotals"]


@dataclass(frozen=True, kw_only=True)
class EpochMetrics:
    """Aggregates of one epoch; per-rank values are tuples of length world.

    Attributes:
        epoch: Index of the epoch.
        loss: Mean training loss over all batches of all ranks, NaN without any.
        epoch_ms: The longest of the ranks' summed compute, wait and transfer times.
        samples_per_s: Samples of all ranks over `epoch_ms`.
        events: Averaging events in the epoch.
        share: Each rank's part of the samples.
        batches: Batches of each rank.
        samples: Samples of each rank.
        compute_ms: Time each rank spent training.
        wait_ms: Time each rank spent waiting for peers.
        transfer_ms: Time each rank spent exchanging parameters.
    """

    epoch: int
    loss: float
    epoch_ms: float
    samples_per_s: float
    events: int
    share: tuple[float, ...]
    batches: tuple[int, ...]
    samples: tuple[int, ...]
    compute_ms: tuple[float, ...]
    wait_ms: tuple[float, ...]
    transfer_ms: tuple[float, ...]


class EpochTotals:
    """Sums the windows of one epoch.

    A rank's time over several windows is their sum. What ranks have already trained of the next
    epoch is kept apart, and is where that epoch starts. Cost: O(world_size) per event.

    Args:
        world_size: Number of ranks.
    """

    def __init__(self, world_size: int) -> None:
        self.world_size = world_size
        self._ahead = [Report()] * world_size
        self.reset()

    def reset(self, *, before: int = 0) -> None:
        """Start the next epoch, with what was trained ahead of it.

        Args:
            before: Batches of the epoch that another run has trained; only `batches` counts them.
        """
        self._before = before
        self._sums = self._ahead
        self._ahead = [Report()] * self.world_size
        self._events = 0

    @property
    def batches(self) -> int:
        """Batches of all ranks so far."""
        return self._before + sum(total.batches for total in self._sums)

    def add(self, reports: Sequence[Report]) -> None:
        """Take in one event: the reports of all ranks, in rank order."""
        if self._events == 0:
            # What the last epoch's closing event cost came through `add_costs`, in that epoch.
            reports = [replace(report, wait_ms=0.0, transfer_ms=0.0) for report in reports]
        self._events += 1
        # A batch that was skipped and dealt once more is one of the epoch's all the same.
        reports = [replace(own, batches=own.batches - own.redealt) for own in reports]
        ahead = [_ahead_part(report) for report in reports]
        self._ahead = [_sum(old, new) for old, new in zip(self._ahead, ahead, strict=True)]
        self._sums = [
            _difference(_sum(old, new), part)
            for old, new, part in zip(self._sums, reports, ahead, strict=True)
        ]

    def add_costs(self, costs: Sequence[tuple[float, float]]) -> None:
        """Take in what the closing event cost: (wait, transfer) in milliseconds of each rank."""
        self._sums = [
            _sum(old, Report(wait_ms=wait, transfer_ms=transfer))
            for old, (wait, transfer) in zip(self._sums, costs, strict=True)
        ]

    def metrics(self, epoch: int) -> EpochMetrics:
        """Return the aggregates as of now."""
        sums = self._sums
        samples = tuple(total.samples for total in sums)
        epoch_ms = max(total.compute_ms + total.wait_ms + total.transfer_ms for total in sums)
        losses = sum(total.loss_count for total in sums)
        return EpochMetrics(
            epoch=epoch,
            loss=sum(total.loss_sum for total in sums) / losses if losses else math.nan,
            epoch_ms=epoch_ms,
            samples_per_s=1000.0 * sum(samples) / epoch_ms if epoch_ms else 0.0,
            events=self._events,
            share=tuple(count / max(1, sum(samples)) for count in samples),
            batches=tuple(total.batches for total in sums),
            samples=samples,
            compute_ms=tuple(total.compute_ms for total in sums),
            wait_ms=tuple(total.wait_ms for total in sums),
            transfer_ms=tuple(total.transfer_ms for total in sums),
        )


def _sum(old: Report, new: Report) -> Report:
    return replace(
        old,
        batches=old.batches + new.batches,
        samples=old.samples + new.samples,
        compute_ms=old.compute_ms + new.compute_ms,
        wait_ms=old.wait_ms + new.wait_ms,
        transfer_ms=old.transfer_ms + new.transfer_ms,
        loss_sum=old.loss_sum + new.loss_sum,
        loss_count=old.loss_count + new.loss_count,
    )


def _ahead_part(report: Report) -> Report:
    """Return the part of `report` that belongs to the next epoch, by its part of the batches."""
    if not report.ahead_batches:
        return Report()
    losses = report.loss_count * report.ahead_batches // report.batches
    return Report(
        batches=report.ahead_batches,
        samples=report.ahead_samples,
        compute_ms=report.compute_ms * report.ahead_batches / report.batches,
        loss_sum=report.loss_sum * losses / max(1, report.loss_count),
        loss_count=losses,
    )


def _difference(whole: Report, part: Report) -> Report:
    return replace(
        whole,
        batches=whole.batches - part.batches,
        samples=whole.samples - part.samples,
        compute_ms=whole.compute_ms - part.compute_ms,
        loss_sum=whole.loss_sum - part.loss_sum,
        loss_count=whole.loss_count - part.loss_count,
    )
