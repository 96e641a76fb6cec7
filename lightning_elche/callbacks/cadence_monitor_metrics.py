"""What is logged of an averaging event."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning_elche.control.events import AveragingEvent
    from lightning_elche.control.reports import Report

__all__ = ["metrics_of"]


def metrics_of(event: AveragingEvent, *, per_rank: bool = False) -> dict[str, float]:
    """Return the logged metrics of one event, by name."""
    plan, reports = event.plan, event.reports
    compute_ms = sum(report.compute_ms for report in reports)
    input_ms = sum(report.input_ms for report in reports)
    metrics = {
        "elche/anchor": float(plan.anchor),
        "elche/local_steps": float(plan.local_steps[plan.fastest]),
        "elche/share": plan.shares[plan.fastest],
        "elche/sync_ms": event.transfer_ms,
        "elche/wait_ms": event.wait_ms,
        "elche/overhead_ratio": event.overhead_ratio,
        "elche/idle_ratio": event.idle_ratio,
        "elche/input_ratio": _ratio(input_ms, compute_ms),
        "elche/skipped": float(sum(report.skipped for report in reports)),
        "elche/divergence": event.divergence,
        "elche/overshoot": float(plan.max_overshoot),
        "elche/saved_bytes": float(event.saved_bytes),
        "elche/batch_ms/min": min(plan.ms_per_batch),
        "elche/batch_ms/median": statistics.median(plan.ms_per_batch),
        "elche/batch_ms/max": max(plan.ms_per_batch),
    }
    if per_rank:
        for rank, report in enumerate(reports):
            metrics[f"elche/rank{rank}/share"] = plan.shares[rank]
            metrics[f"elche/rank{rank}/local_steps"] = float(plan.local_steps[rank])
            metrics[f"elche/rank{rank}/batch_ms"] = plan.ms_per_batch[rank]
            metrics[f"elche/rank{rank}/input_ratio"] = _ratio(report.input_ms, report.compute_ms)
            metrics[f"elche/rank{rank}/wait_ratio"] = _waited(report)
    return metrics


def _waited(report: Report) -> float:
    whole_ms = report.compute_ms + report.wait_ms + report.transfer_ms
    return _ratio(report.wait_ms, whole_ms)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
