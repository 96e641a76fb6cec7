"""Tests of what an averaging event has decided."""

from __future__ import annotations

import dataclasses

from lightning_elche.control.events import AveragingEvent
from lightning_elche.control.guard import GuardAction
from lightning_elche.control.reports import Report
from lightning_elche.control.schedule import Plan
from lightning_elche.coordination.decisions import decisions_of

PLAN = Plan(
    index=3,
    anchor=8,
    local_steps=(8, 16),
    ms_per_batch=(2.0, 1.0),
    shares=(0.34, 0.66),
    slowest=0,
    is_calibrated=True,
)
EVENT = AveragingEvent(
    index=2,
    epoch=0,
    global_step=48,
    epoch_batches=48,
    reports=(Report(compute_ms=100.0), Report(compute_ms=80.0, transfer_ms=14.0)),
    plan=PLAN,
    action=GuardAction.STABLE,
    wait_ms=1.0,
    transfer_ms=2.0,
    exchanged_bytes=10,
)


def decided(event: AveragingEvent, **before: object) -> list[tuple[str, dict[str, object]]]:
    """Return what was decided, but for the event itself."""
    plan = dataclasses.replace(PLAN, **before)  # type: ignore[arg-type]
    return list(decisions_of(event, before=plan))[1:]


def test_event_itself_is_told() -> None:
    """With its numbers."""
    average = {
        "index": 2,
        "epoch": 0,
        "global_step": 48,
        "anchor": 8,
        "wait_ms": 1.0,
        "transfer_ms": 2.0,
    }
    assert list(decisions_of(EVENT, before=None)) == [("average", average)]


def test_nothing_is_told_of_what_stays() -> None:
    """Nor of a share that differs by less than a hundredth."""
    assert decided(EVENT) == []
    assert decided(EVENT, shares=(0.345, 0.655)) == []


def test_new_anchor_is_told_with_its_reason() -> None:
    """What the exchange cost of the window."""
    assert decided(EVENT, anchor=4) == [("anchor", {"from": 4, "to": 8, "reason": "overhead 0.14"})]


def test_anchor_that_the_guard_has_set_names_the_divergence() -> None:
    """Where replicas drift apart, that counts."""
    reports = (Report(relative_delta=0.3), Report(relative_delta=0.1))
    event = dataclasses.replace(EVENT, action=GuardAction.TIGHTEN, reports=reports)
    assert decided(event, anchor=16) == [
        ("anchor", {"from": 16, "to": 8, "reason": "divergence 0.3: tighten"})
    ]


def test_new_shares_are_told() -> None:
    """Of all ranks."""
    assert decided(EVENT, shares=(0.5, 0.5)) == [("share", {"shares": [0.34, 0.66]})]
