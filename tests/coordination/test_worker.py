"""Calls with a deadline on threads."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from types import FrameType

import pytest

from lightning_elche.coordination import DeadlineWorker, Task, TaskTimeout, Token
from lightning_elche.exceptions import DeadlineExceeded, WorkerBusy
from tests.coordination.calls import Gate, eventually, worker_threads
from tests.distributed.threads import FakeClock


def blocked(worker: DeadlineWorker, timeout_s: float | None = 1.0) -> tuple[Task[object], Gate]:
    """Return a task that has begun, and what lets it end."""
    gate = Gate()
    task = worker.submit(gate, "late", timeout_s=timeout_s, name="read")
    assert gate.begun.wait(20.0)
    return task, gate


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


def test_stuck_tasks_keep_their_threads() -> None:
    """A third is refused at once, and taken when one has returned."""
    clock = FakeClock()
    worker = DeadlineWorker(max_threads=2, clock=clock)
    gates = [blocked(worker)[1] for _ in range(2)]
    clock.now = 2.0
    with pytest.raises(WorkerBusy, match="all threads, 2, are stuck"):
        worker.submit(Gate(), timeout_s=1.0, name="third")
    assert (worker.stats()["stuck"], worker.stats()["rejected"]) == (2, 1)
    gates[0].opened.set()
    assert eventually(lambda: worker.stats()["stuck"] == 1)
    assert worker.submit(lambda _: "third", timeout_s=20.0, name="third").take() == "third"
    gates[1].opened.set()


def test_full_queue_refuses() -> None:
    """At once, naming the task."""
    worker = DeadlineWorker(max_threads=1, queue_size=2)
    _, gate = blocked(worker, timeout_s=None)
    for _ in range(2):
        worker.submit(Gate(), timeout_s=None, name="queued")
    with pytest.raises(WorkerBusy, match="'third' was not taken: the queue is full, with 2"):
        worker.submit(Gate(), timeout_s=None, name="third")
    assert worker.close(0.0) == ("read",)
    gate.opened.set()


def test_worker_refuses_where_no_thread_can_start() -> None:
    """And the task is not left in the queue."""
    worker = DeadlineWorker()
    default = threading.stack_size(2**47)  # no address space holds it
    try:
        with pytest.raises(WorkerBusy, match="no thread could be started"):
            worker.submit(lambda _: None, timeout_s=1.0, name="first")
    finally:
        threading.stack_size(default)
    assert worker.submit(lambda _: "second", timeout_s=20.0, name="second").take() == "second"
    assert worker.stats()["submitted"] == 1


def test_repeated_timeouts_keep_threads_within_the_cap() -> None:
    """Stuck ones, and those that end while others begin."""
    clock, before, counts = FakeClock(), set(worker_threads()), []
    worker = DeadlineWorker(max_threads=3, clock=clock)
    gates = [blocked(worker)[1] for _ in range(3)]
    for _ in range(200):
        counts.append(len(set(worker_threads()) - before))
        clock.now += 0.3
        gates.append(Gate())
        try:
            worker.submit(gates[-1], timeout_s=1.0, name="read")
        except WorkerBusy:
            for gate in gates:
                gate.opened.set()
    for gate in gates:
        gate.opened.set()
    assert max(counts) == 3
    assert worker.close() == ()


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Threads take turns far more often than usual, so that they meet in rare places."""
    usual_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual_s)


@pytest.mark.usefixtures("hasty_threads")
def test_thread_between_two_tasks_is_not_stuck() -> None:
    """Its task is over, so that the next is taken."""
    worker = DeadlineWorker(max_threads=1)
    for number in range(300):
        task = worker.submit(lambda _, x: x, number, timeout_s=20.0, name="count")
        assert task.take() == number
    assert worker.stats()["stuck"] == 0


def test_thread_counts_until_it_has_ended() -> None:
    """The next begins only then."""
    leaving = threading.Event()

    def linger(frame: FrameType, event: str, _: object) -> None:
        if event == "return" and frame.f_code.co_name == "_work":
            leaving.set()
            threading.Event().wait(0.05)

    worker, before = DeadlineWorker(max_threads=1), set(worker_threads())
    threading.setprofile(linger)
    try:
        worker.submit(lambda _: None, timeout_s=20.0, name="first")
        assert leaving.wait(20.0)
        worker.submit(lambda _: None, timeout_s=20.0, name="second")
        assert len(set(worker_threads()) - before) <= 1
    finally:
        threading.setprofile(None)
    assert worker.close() == ()


def test_no_thread_outlives_close() -> None:
    """200 tasks that give up at random deadlines leave no thread."""

    def wait(token: Token) -> None:
        never = threading.Event()
        while not token.is_cancelled:
            never.wait(0.0005)
        token.check()

    draw, worker = random.Random(7), DeadlineWorker(max_threads=8, queue_size=200)
    before = set(worker_threads())
    tasks = [
        worker.submit(wait, timeout_s=draw.uniform(0.0001, 0.2), name=f"task {index}")
        for index in range(200)
    ]
    for task in tasks[::2]:
        with pytest.raises(DeadlineExceeded):
            task.take()
    start_s = time.monotonic()
    assert worker.close(5.0) == ()
    assert time.monotonic() - start_s < 5.0
    assert set(worker_threads()) <= before


def test_close_cancels_and_names_what_is_stuck() -> None:
    """Once, or twice; and waits no longer than it was told."""
    worker = DeadlineWorker(max_threads=1)
    running, gate = blocked(worker, timeout_s=None)
    queued = worker.submit(Gate(), timeout_s=None, name="queued")
    assert (worker.close(0.01), worker.close(0.01)) == (("read",), ("read",))
    assert running.token.is_cancelled
    for task in (running, queued):
        with pytest.raises(CancelledError, match="its worker was closed"):
            task.take()
    gate.opened.set()
    assert worker.close() == ()
    assert worker.stats()["cancelled"] == 2


def test_closed_worker_takes_no_task() -> None:
    """Neither on a thread nor in a process."""
    worker = DeadlineWorker()
    worker.close()
    with pytest.raises(RuntimeError, match="was closed"):
        worker.submit(lambda _: None, timeout_s=1.0, name="late")
    with pytest.raises(RuntimeError, match="was closed"):
        worker.run(print, timeout_s=1.0, name="late")


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


STUCK = """
import threading
from lightning_elche.coordination import DeadlineWorker
begun = threading.Event()
def wait(token):
    begun.set()
    threading.Event().wait(6.0)
DeadlineWorker().submit(wait, timeout_s=0.1, name="stuck")
begun.wait()
print("end of main", flush=True)
"""


def test_process_with_a_stuck_task_exits() -> None:
    """Its exit does not wait for the six seconds of the task."""
    command = [sys.executable, "-c", STUCK]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "end of main\n"
        start_s = time.monotonic()
        assert process.wait(20.0) == 0
    assert time.monotonic() - start_s < 1.0


FORK = """
import os, threading
from lightning_elche.coordination import DeadlineWorker
worker, begun = DeadlineWorker(max_threads=1), threading.Event()
def wait(token):
    begun.set()
    threading.Event().wait()
task = worker.submit(wait, timeout_s=None, name="stuck")
begun.wait()
worker._crew._changed.acquire()  # as another thread may hold it at the moment of the fork
child = os.fork()
if child:
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(worker.submit(lambda _: "anew", timeout_s=9.0, name="new").take(), worker.stats())
try:
    task.take()
except RuntimeError as err:
    print(str(err).split(":")[1], flush=True)
os._exit(5)
"""


def test_forked_child_begins_anew() -> None:
    """With no threads, no tasks and no lock of its parent, whose task it cannot wait for."""
    command = [sys.executable, "-W", "ignore", "-c", FORK]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20.0, check=False)
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (5, "")
    assert lines[0].startswith("anew {'submitted': 1, 'completed': 1,")
    assert lines[1] == " it was forked, and has no threads of its own. Submit the task here."


def test_package_imports_nothing_heavy() -> None:
    """Neither numpy, torch nor Lightning."""
    code = (
        "import sys\nfrom lightning_elche.coordination import *\n"
        "print({'torch', 'lightning', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert done.stdout == "set()\n"
