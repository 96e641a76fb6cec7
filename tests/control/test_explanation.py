"""Events in words."""

from __future__ import annotations

from lightning_elche.control.controller import Controller
from lightning_elche.control.events import AveragingEvent
from lightning_elche.control.explanation import explain
from lightning_elche.control.guard import GuardAction
from lightning_elche.control.reports import Report
from lightning_elche.control.schedule import Readiness


def event_of(action: GuardAction = GuardAction.STABLE) -> AveragingEvent:
    """An event of a fast rank and of a slow one, which agreed last."""
    return AveragingEvent(
        index=3,
        epoch=1,
        global_step=200,
        epoch_batches=50,
        reports=(
            Report(batches=40, agreed_after_ms=612.0, readiness=Readiness.TIME),
            Report(batches=10, agreed_after_ms=680.0, readiness=Readiness.STEPS),
        ),
        plan=Controller(2).plan,
        action=action,
        wait_ms=4.0,
        transfer_ms=2.5,
        exchanged_bytes=1024,
    )


def test_rank_that_agreed_last_is_named_with_its_reason() -> None:
    """The line tells who, when and why."""
    line = explain(event_of())
    assert "rank 1 agreed last, after 680 ms, having made the anchor's steps" in line
    assert line.startswith("event 3, epoch 1, step 200")


def test_batches_costs_and_plan_are_told() -> None:
    """The line goes on with what was done and what comes next."""
    assert explain(event_of()).endswith(
        "batches 40, 10; exchange 2.5 ms, wait 4.0 ms; next anchor 10"
    )


def test_guard_is_told_when_it_acts() -> None:
    """A stable guard is not worth a word."""
    assert explain(event_of(GuardAction.HOLD)).endswith("next anchor 10, guard HOLD")
