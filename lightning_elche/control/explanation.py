"""Averaging events in words: why they happened when they did."""

from __future__ import annotations

from lightning_elche.control.events import AveragingEvent
from lightning_elche.control.guard import GuardAction
from lightning_elche.control.schedule import Readiness

__all__ = ["explain"]

REASONS = {
    Readiness.NOT_READY: "without having agreed",
    Readiness.DRAINED: "having no data left",
    Readiness.PROBED: "having made the steps that a first measurement takes",
    Readiness.STEPS: "having made the anchor's steps",
    Readiness.TIME: "as the planned time was over",
    Readiness.HURRIED: "as a rank wants to end the run",
}


def explain(event: AveragingEvent) -> str:
    """Return one line on `event`: who set its time and why, what was done, and what comes next."""
    last = max(range(len(event.reports)), key=lambda rank: event.reports[rank].agreed_after_ms)
    report = event.reports[last]
    batches = ", ".join(str(report.batches) for report in event.reports)
    inside = "" if event.crossed_nodes else " inside nodes"
    guard = "" if event.action is GuardAction.STABLE else f", guard {event.action.name}"
    return (
        f"event {event.index}, epoch {event.epoch}, step {event.global_step}: "
        f"rank {last} agreed last, after {report.agreed_after_ms:.0f} ms, "
        f"{REASONS[Readiness(report.readiness)]}; batches {batches}; "
        f"exchange{inside} {event.transfer_ms:.1f} ms, wait {event.wait_ms:.1f} ms; "
        f"next anchor {event.plan.anchor}{guard}"
    )
