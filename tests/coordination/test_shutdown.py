"""What is done at the end of a run, within one total of time."""

from __future__ import annotations

import threading

import pytest

from lightning_elche.coordination.stopping.shutdown import PRIORITIES, ShutdownPlan, StepOutcome
from tests.coordination.stopwatch import FakeClock


def test_steps_are_taken_by_priority_then_last_first() -> None:
    """The order of registration is turned around among equal ones."""
    order: list[str] = []
    plan = ShutdownPlan()
    for name, priority in (("flush", 50), ("a", 40), ("b", 40), ("intake", 10)):
        plan.add(name, lambda name=name: order.append(name), priority, timeout_s=5.0)
    result = plan.run(total_s=20.0)
    assert order == list(result.outcomes) == ["intake", "b", "a", "flush"]


def test_step_that_fails_or_hangs_does_not_stop_the_next() -> None:
    """All end within the total; the outcomes say which was which."""
    never, done = threading.Event(), threading.Event()
    plan = ShutdownPlan()

    def fail() -> None:
        raise OSError("no disk")

    plan.add("fails", fail, 10, timeout_s=5.0, is_on_main=True)
    plan.add("hangs", lambda: never.wait(30.0), 20, timeout_s=0.05)
    plan.add("ends", done.set, 30, timeout_s=5.0)
    result = plan.run(total_s=5.0)
    assert result.to_dict() == {"fails": "failed", "hangs": "timed_out", "ends": "done"}
    assert (str(result.errors["fails"]), done.is_set()) == ("no disk", True)
    never.set()


def test_step_leaves_the_time_that_later_ones_have_reserved() -> None:
    """One total: what a step takes too long, an unreserved later one has no more."""
    clock = FakeClock()
    plan = ShutdownPlan(clock)
    plan.add("long", lambda: clock.advance(8.0), 30, timeout_s=99.0, is_on_main=True)
    plan.add("late", lambda: None, 40, timeout_s=5.0)
    plan.add("sure", lambda: None, 50, timeout_s=5.0, reserve_s=2.0)
    result = plan.run(total_s=10.0)
    assert result.to_dict() == {"long": "done", "late": "skipped", "sure": "done"}
    assert result.seconds["long"] == 8.0


def test_nothing_is_done_without_time() -> None:
    """A step whose budget is up before it begins is skipped."""
    plan = ShutdownPlan()
    plan.add("step", lambda: None, 10, timeout_s=1.0)
    assert plan.run(total_s=0.0).outcomes == {"step": StepOutcome.SKIPPED}


def test_step_on_main_runs_in_the_calling_thread() -> None:
    """A collective must; the rest must not hold it up."""
    threads: dict[str, threading.Thread] = {}
    plan = ShutdownPlan()

    def note(name: str) -> None:
        threads[name] = threading.current_thread()

    plan.add("main", lambda: note("main"), 30, timeout_s=5.0, is_on_main=True)
    plan.add("other", lambda: note("other"), 30, timeout_s=5.0)
    plan.run(total_s=10.0)
    assert threads["main"] is threading.current_thread()
    assert threads["other"].daemon


def test_step_of_the_same_name_is_replaced() -> None:
    """And one that was removed is not taken."""
    plan, calls = ShutdownPlan(), []
    plan.add("x", lambda: calls.append(1), 10, timeout_s=1.0)
    plan.add("x", lambda: calls.append(2), 10, timeout_s=1.0)
    plan.run(total_s=1.0)
    plan.remove("x")
    plan.run(total_s=1.0)
    assert calls == [2]


def test_order_of_the_end_is_fixed() -> None:
    """A checkpoint comes before what may hang on a network."""
    assert sorted(PRIORITIES, key=lambda name: PRIORITIES[name]) == [
        "stop intake",
        "closing average",
        "checkpoint",
        "drain uploads",
        "flush",
        "release",
    ]


def test_bad_times_are_refused() -> None:
    """A step needs some."""
    with pytest.raises(ValueError, match="`timeout_s` must be > 0, got 0"):
        ShutdownPlan().add("x", lambda: None, 10, timeout_s=0.0)
    with pytest.raises(ValueError, match="`reserve_s` must be >= 0, got -1"):
        ShutdownPlan().add("x", lambda: None, 10, timeout_s=1.0, reserve_s=-1.0)
