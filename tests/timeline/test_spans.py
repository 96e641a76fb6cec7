"""Where each rank's time went."""

from __future__ import annotations

import pytest

from lightning_elche.control.controller import Controller
from lightning_elche.control.events import AveragingEvent
from lightning_elche.control.guard import GuardAction
from lightning_elche.control.reports import Report
from lightning_elche.timeline.spans import Span, spans_of


def event_of(*reports: Report) -> AveragingEvent:
    """Return an event with these reports."""
    return AveragingEvent(
        index=0,
        epoch=0,
        global_step=0,
        epoch_batches=0,
        reports=reports,
        plan=Controller(2).plan,
        action=GuardAction.STABLE,
        wait_ms=0.0,
        transfer_ms=0.0,
        exchanged_bytes=0,
    )


FIRST = event_of(Report(compute_ms=500.0), Report(compute_ms=750.0))
SECOND = event_of(
    Report(compute_ms=100.0, wait_ms=375.0, transfer_ms=125.0),
    Report(compute_ms=100.0, wait_ms=125.0, transfer_ms=125.0),
)


def test_spans_end_with_their_event() -> None:
    """Compute, wait and average follow each other up to the end of the event."""
    spans = spans_of([(2.0, FIRST), (3.0, SECOND)])
    assert spans[:3] == [
        Span(0, "compute", 1.0, 0.5),
        Span(0, "wait", 1.5, 0.375),
        Span(0, "average", 1.875, 0.125),
    ]


def test_ranks_begin_and_end_a_window_together() -> None:
    """Costs of an event come from the reports of the next one, rank by rank."""
    spans = spans_of([(2.0, FIRST), (3.0, SECOND)])
    assert [(s.rank, s.start_s) for s in spans if s.kind == "compute"] == [(0, 1.0), (1, 1.0)]


@pytest.mark.parametrize("events", [[], [(2.0, FIRST)]])
def test_last_event_has_no_spans(events: list[tuple[float, AveragingEvent]]) -> None:
    """What an event cost is known only with the next, so that one event gives none."""
    assert spans_of(events) == []


def test_every_event_but_the_last_has_three_spans_per_rank() -> None:
    """Three events of two ranks give two windows of six spans."""
    assert len(spans_of([(1.0, FIRST), (2.0, SECOND), (3.0, SECOND)])) == 12
