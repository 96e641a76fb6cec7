"""The threads of a worker: how many there are, and when they end."""

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

from lightning_elche.coordination import DeadlineWorker, Token
from lightning_elche.exceptions import DeadlineExceeded, WorkerBusy
from tests.coordination.blocking import blocked
from tests.coordination.calls import Gate, eventually, worker_threads
from tests.distributed.threads import FakeClock


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
