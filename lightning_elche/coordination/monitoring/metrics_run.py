"""What the averaging events of a run add up to."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from lightning_elche.control.events import AveragingEvent
from lightning_elche.control.reports import Report
from lightning_elche.coordination.monitoring.exposition import Samples

__all__ = ["RunTotals"]

SECONDS = 0.001  # of a millisecond


@dataclass
class _Rank:
    steps: int = 0
    samples: int = 0
    skipped: int = 0
    input_s: float = 0.0
    throttle_s: float = 0.0
    wait_s: float = 0.0
    transfer_s: float = 0.0
    samples_per_s: float = 0.0
    duty: float = 1.0

    def add(self, report: Report) -> None:
        self.steps += report.batches
        self.samples += report.samples
        self.skipped += report.skipped
        self.input_s += SECONDS * report.input_ms
        self.throttle_s += SECONDS * report.throttle_ms
        self.wait_s += SECONDS * report.wait_ms
        self.transfer_s += SECONDS * report.transfer_ms
        window_ms = report.compute_ms + report.wait_ms + report.transfer_ms
        if window_ms > 0.0:
            self.samples_per_s = report.samples / (SECONDS * window_ms)
        if report.compute_ms > 0.0:
            self.duty = max(0.0, 1.0 - report.throttle_ms / report.compute_ms)


class RunTotals:
    """Adds up the reports of all ranks, for a monitoring system.

    One thread adds and others read. Each event costs O(ranks).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ranks: list[_Rank] = []
        self._num_averages = 0
        self._latest: AveragingEvent | None = None
        self._met_at = self._period_s = 0.0

    def add(self, event: AveragingEvent, at: float) -> None:
        """Take in an event.

        Args:
            event: The next one.
            at: When it took place, in seconds since 1970.
        """
        with self._lock:
            self._ranks += [_Rank() for _ in event.reports[len(self._ranks) :]]
            for rank, report in zip(self._ranks, event.reports, strict=True):
                rank.add(report)
            if self._latest is not None:
                self._period_s = max(0.0, at - self._met_at)
            self._num_averages += 1
            self._latest, self._met_at = event, at

    def samples(self) -> Samples:
        """Return the numbers so far, none before the first event."""
        with self._lock:
            if self._latest is None:
                return {}
            return {**self._of_event(self._latest), **self._of_ranks()}

    def _of_event(self, event: AveragingEvent) -> Samples:
        found: Samples = {
            "averages_total": {(): self._num_averages},
            "last_average_timestamp_seconds": {(): self._met_at},
            "anchor_batches": {(): event.plan.anchor},
            "overhead_ratio": {(): event.overhead_ratio},
            "share_ratio": {(str(rank),): share for rank, share in enumerate(event.plan.shares)},
        }
        if self._num_averages > 1:
            found["average_period_seconds"] = {(): self._period_s}
        return found

    def _of_ranks(self) -> Samples:
        ranks = [(str(number), rank) for number, rank in enumerate(self._ranks)]
        return {
            "steps_total": {(key,): rank.steps for key, rank in ranks},
            "samples_total": {(key,): rank.samples for key, rank in ranks},
            "throughput_samples_per_second": {(key,): rank.samples_per_s for key, rank in ranks},
            "duty_ratio": {(key,): rank.duty for key, rank in ranks},
            "batches_skipped_total": {(key, "oom"): rank.skipped for key, rank in ranks},
            "average_seconds_total": {
                (phase, key): seconds
                for key, rank in ranks
                for phase, seconds in (("wait", rank.wait_s), ("transfer", rank.transfer_s))
            },
            "idle_seconds_total": {
                (key, cause): seconds for key, rank in ranks for cause, seconds in _idle(rank)
            },
        }


def _idle(rank: _Rank) -> tuple[tuple[str, float], ...]:
    return (
        ("input", rank.input_s),
        ("throttle", rank.throttle_s),
        ("average_wait", rank.wait_s),
        ("average_transfer", rank.transfer_s),
    )
