"""What callbacks see of an event."""

from __future__ import annotations

import pytest

from lightning_elche.control.controller import Controller
from lightning_elche.control.events import AveragingEvent
from lightning_elche.control.guard import GuardAction
from lightning_elche.control.reports import Report
from lightning_elche.control.requests import StopCause


def event_of(*reports: Report) -> AveragingEvent:
    """Return an event with these reports."""
    return AveragingEvent(
        index=4,
        epoch=1,
        global_step=250,
        epoch_batches=100,
        reports=reports,
        plan=Controller(2).plan,
        action=GuardAction.STABLE,
        wait_ms=0.0,
        transfer_ms=0.0,
        exchanged_bytes=0,
    )


def test_epoch_is_complete_when_every_rank_is_drained() -> None:
    """The epoch ends with the last rank's data."""
    assert event_of(Report(is_drained=True), Report(is_drained=True)).is_epoch_complete


def test_epoch_is_not_complete_while_one_rank_has_data() -> None:
    """One rank with data keeps the epoch open."""
    assert not event_of(Report(is_drained=True), Report()).is_epoch_complete


def test_should_stop_counts_when_one_rank_sets_it() -> None:
    """A stop on any rank holds for all; without one it does not."""
    assert event_of(Report(), Report(should_stop=True)).should_stop
    assert not event_of(Report(), Report()).should_stop


def test_smallest_cause_is_why_the_run_ends() -> None:
    """All ranks leave for the same reason, whatever else has come about."""
    failed, interrupted = Report(stop=StopCause.FAILURE), Report(stop=StopCause.SIGINT)
    assert event_of(Report(), failed, interrupted).stop is StopCause.SIGINT
    assert event_of(Report(), Report()).stop is StopCause.NONE


def test_first_rank_with_an_error_is_named() -> None:
    """So that the others can say whose output tells more."""
    assert event_of(Report(), Report(stop=StopCause.FAILURE)).failed_rank == 1
    assert event_of(Report(stop=StopCause.SIGTERM), Report()).failed_rank is None


def test_optimizer_steps_are_summed_over_ranks() -> None:
    """The window's steps are those of all ranks."""
    assert event_of(Report(optimizer_steps=40), Report(optimizer_steps=10)).optimizer_steps == 50


def test_idle_ratio_is_the_waiting_part_of_all_time() -> None:
    """10 ms of waiting in 200 ms of two ranks are 5 %."""
    event = event_of(
        Report(compute_ms=90.0, wait_ms=10.0), Report(compute_ms=95.0, transfer_ms=5.0)
    )
    assert event.idle_ratio == 0.05


def test_overhead_ratio_relates_the_largest_cost_to_the_longest_time() -> None:
    """20 ms of exchange after 400 ms on the busiest rank are 5 %."""
    event = event_of(
        Report(compute_ms=400.0, transfer_ms=1.0), Report(compute_ms=100.0, transfer_ms=20.0)
    )
    assert event.overhead_ratio == 0.05


def test_ratios_are_zero_without_any_time() -> None:
    """An event in which nobody did anything divides by nothing."""
    event = event_of(Report(), Report())
    assert (event.idle_ratio, event.overhead_ratio) == (0.0, 0.0)


def test_divergence_is_the_largest_distance() -> None:
    """The replica farthest from the average counts."""
    event = event_of(Report(relative_delta=0.3), Report(relative_delta=0.1))
    assert event.divergence == 0.3


@pytest.mark.parametrize("wish", ["pause", "checkpoint"])
def test_wish_of_one_rank_counts(wish: str) -> None:
    """For all of them; without one nobody has it."""
    assert getattr(event_of(Report(), Report(**{wish: True})), wish)
    assert not getattr(event_of(Report(), Report()), wish)
