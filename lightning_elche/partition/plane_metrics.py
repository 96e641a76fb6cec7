"""What a plane counts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from lightning_elche.partition.executor import PhaseReport

__all__ = ["PhaseMetric", "PlaneCounters", "PlaneMetrics"]


@dataclass(frozen=True)
class PhaseMetric:
    """How a phase went in all steps.

    Args:
        index: Its number.
        name: Its name.
        executions: How often it was called.
        last_elapsed_us: How long its last call took.
        total_elapsed_us: How long all calls took.
    """

    index: int
    name: str
    executions: int = 0
    last_elapsed_us: int = 0
    total_elapsed_us: int = 0

    def after(self, report: PhaseReport) -> PhaseMetric:
        """Return the metric after another call."""
        return replace(
            self,
            executions=self.executions + 1,
            last_elapsed_us=report.elapsed_us,
            total_elapsed_us=self.total_elapsed_us + report.elapsed_us,
        )


@dataclass(frozen=True, kw_only=True)
class PlaneCounters:
    """What a restore does not change.

    Args:
        steps_completed: Steps that were made.
        rows_processed: Rows that phases were called with.
        last_step_us: How long the last step took.
        total_step_us: How long all steps took.
        checkpoints_created: Checkpoints that were made.
        replay_fingerprints: Fingerprints that were taken in.
        phases: How each phase went.
    """

    steps_completed: int = 0
    rows_processed: int = 0
    last_step_us: int = 0
    total_step_us: int = 0
    checkpoints_created: int = 0
    replay_fingerprints: int = 0
    phases: tuple[PhaseMetric, ...] = ()

    def after_step(self, reports: Iterable[PhaseReport], elapsed_us: int) -> PlaneCounters:
        """Return the counters after another step."""
        phases = {metric.index: metric for metric in self.phases}
        rows = self.rows_processed
        for report in reports:
            rows += report.rows
            known = phases.get(report.index, PhaseMetric(report.index, report.name))
            phases[report.index] = known.after(report)
        return replace(
            self,
            steps_completed=self.steps_completed + 1,
            rows_processed=rows,
            last_step_us=elapsed_us,
            total_step_us=self.total_step_us + elapsed_us,
            phases=tuple(phases[index] for index in sorted(phases)),
        )


@dataclass(frozen=True, kw_only=True)
class PlaneMetrics(PlaneCounters):
    """All that a plane says of itself.

    Args:
        current_step: The step.
        num_rows: The number of rows.
        num_bytes: The bytes of the state.
        phase_count: The number of phases.
        partition_count: The number of partitions.
    """

    current_step: int
    num_rows: int
    num_bytes: int
    phase_count: int
    partition_count: int
