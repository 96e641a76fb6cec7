"""Calls with a deadline on threads."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lightning_elche.coordination import DeadlineWorker, TaskTimeout, Token
from lightning_elche.exceptions import DeadlineExceeded
from tests.coordination.blocking import blocked
from tests.coordination.calls import eventually
from tests.distributed.threads import FakeClock


def test_value_is_given_once() -> None:
    """On the thread of the caller, who cannot apply it twice."""
    task = DeadlineWorker().submit(lambda _, x: 2 * x, 21, timeout_s=20.0, name="double")
    assert task.take() == 42
    with pytest.raises(RuntimeError, match="'double' was taken before"):
        task.take()


def test_error_of_a_task_is_raised_where_it_is_taken() -> None:
    """As it was raised."""
    task = DeadlineWorker().submit(lambda _: 1 / 0, timeout_s=20.0, name="divide")
    with pytest.raises(ZeroDivisionError):
        task.take()


def test_task_that_exits_does_not_end_who_takes_it() -> None:
    """An exit is an error of the task, and its thread goes on with the next."""
    worker = DeadlineWorker(max_threads=1)
    task = worker.submit(lambda _: sys.exit(3), timeout_s=20.0, name="exit")
    with pytest.raises(RuntimeError, match=r"'exit' raised SystemExit\(3\)"):
        task.take()
    assert worker.submit(lambda _: "next", timeout_s=20.0, name="next").take() == "next"


def test_late_value_is_dropped() -> None:
    """Who takes it learns of the deadline, before and after the call has returned."""
    clock = FakeClock()
    worker = DeadlineWorker(clock=clock)
    task, gate = blocked(worker)
    clock.now = 1.0
    assert task.is_done
    gate.opened.set()
    assert eventually(lambda: worker.stats()["stuck"] == 0)
    with pytest.raises(DeadlineExceeded, match="'read' was not over within 1 seconds"):
        task.take()
    assert (worker.stats()["completed"], worker.stats()["timed_out"]) == (0, 1)


def test_deadline_wakes_who_waits() -> None:
    """By the real clock, while the call still runs."""
    worker = DeadlineWorker()
    task, gate = blocked(worker, timeout_s=0.02)
    with pytest.raises(DeadlineExceeded):
        task.take()
    gate.opened.set()


def test_value_in_time_may_be_taken_late() -> None:
    """The deadline is that of the call."""
    clock = FakeClock()
    worker = DeadlineWorker(clock=clock)
    task = worker.submit(lambda _: "value", timeout_s=1.0, name="read")
    assert eventually(lambda: task.is_done)
    clock.now = 5.0
    assert task.take() == "value"


def test_task_without_deadline_never_expires() -> None:
    """However late it is."""
    clock = FakeClock()
    task, gate = blocked(DeadlineWorker(clock=clock), timeout_s=None)
    clock.now = 1e12
    assert not task.is_done
    gate.opened.set()
    assert task.take() == "late"


def test_task_that_expires_in_the_queue_never_begins() -> None:
    """Its deadline counts from its submission."""
    clock = FakeClock()
    worker = DeadlineWorker(max_threads=1, clock=clock)
    first, gate = blocked(worker, timeout_s=None)
    begun: list[str] = []
    second = worker.submit(lambda _: begun.append("second"), timeout_s=1.0, name="queued")
    clock.now = 1.5
    gate.opened.set()
    first.take()
    with pytest.raises(DeadlineExceeded):
        second.take()
    assert (begun, worker.take_timeouts(), worker.take_timeouts()) == (
        [],
        [TaskTimeout(name="queued", timeout_ms=1000.0, waited_ms=1500.0, was_queued=True)],
        [],
    )


def test_timeouts_are_counted_by_name() -> None:
    """With the time of the last, which a success sets, too."""
    clock = FakeClock()
    worker = DeadlineWorker(clock=clock)
    task, gate = blocked(worker)
    clock.now = 4.0
    assert task.is_done
    assert worker.timeouts() == {"read": 1.0, "read_last_ms": 4000.0}
    gate.opened.set()
    task, gate = blocked(worker, timeout_s=10.0)
    clock.now = 6.5
    gate.opened.set()
    task.take()
    assert worker.timeouts() == {"read": 1.0, "read_last_ms": 2500.0}


def test_token_knows_what_remains() -> None:
    """And says in its own words why to stop."""
    clock = FakeClock()
    token, endless = Token("read", 2.0, clock), Token("wait", None, clock)
    clock.now = 0.5
    assert (token.remaining_s(), endless.remaining_s(), token.is_cancelled) == (1.5, None, False)
    token.check()
    clock.now = 3.0
    assert (token.remaining_s(), endless.is_cancelled) == (0.0, False)
    with pytest.raises(DeadlineExceeded):
        token.check()


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, float("nan"), float("inf")])
def test_deadline_must_be_some_time_away(timeout_s: float) -> None:
    """The message names the parameter and the value."""
    with pytest.raises(ValueError, match=f"`timeout_s` must be > 0 .* got {timeout_s}"):
        DeadlineWorker().submit(lambda _: None, timeout_s=timeout_s, name="read")


@pytest.mark.parametrize("option", ["max_threads", "queue_size", "close_timeout_s"])
def test_options_out_of_range_are_refused(option: str) -> None:
    """The message names the parameter."""
    with pytest.raises(ValueError, match=f"`{option}` must be >= ., got -1"):
        DeadlineWorker(**{option: -1})


def test_package_imports_nothing_heavy() -> None:
    """Neither numpy, torch nor Lightning."""
    code = (
        "import sys\nfrom lightning_elche.coordination import *\n"
        "print({'torch', 'lightning', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert done.stdout == "set()\n"
