"""A worker does what a model of it says, whatever happens in whatever order."""

from __future__ import annotations

from concurrent.futures import CancelledError
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from lightning_elche.coordination import DeadlineWorker, Task
from lightning_elche.exceptions import DeadlineExceeded, WorkerBusy
from tests.coordination.calls import Gate, eventually, worker_threads
from tests.distributed.threads import FakeClock

NUM_THREADS, QUEUE_SIZE = 2, 2


@dataclass(eq=False)
class Entry:
    """A task, and what the model says of it."""

    number: int
    deadline_s: float
    gate: Gate = field(default_factory=Gate)
    task: Task[object] | None = None
    fate: str = "open"
    is_taken: bool = False


class Histories(RuleBasedStateMachine):
    """Submits, lets time pass, lets calls return, takes values."""

    entries = Bundle("entries")

    @initialize()
    def begin(self) -> None:
        self.before = set(worker_threads())
        self.clock = FakeClock()
        self.worker = DeadlineWorker(
            max_threads=NUM_THREADS, queue_size=QUEUE_SIZE, clock=self.clock
        )
        self.running: list[Entry] = []
        self.queue: list[Entry] = []
        self.counts = dict.fromkeys(self.worker.stats(), 0)

    def fill(self) -> None:
        """Time out what is late, then give free threads what is queued."""
        for entry in [*self.running, *self.queue]:
            if entry.fate == "open" and self.clock.now >= entry.deadline_s:
                self.end(entry, "timed_out")
        self.queue = [entry for entry in self.queue if entry.fate == "open"]
        while self.queue and len(self.running) < NUM_THREADS:
            self.running.append(self.queue.pop(0))
            assert self.running[-1].gate.begun.wait(20.0)
        self.counts["stuck"] = sum(entry.fate != "open" for entry in self.running)

    def end(self, entry: Entry, fate: str) -> None:
        entry.fate = fate
        self.counts[fate] += 1

    @rule(target=entries, timeout_s=st.integers(1, 6))
    def submit(self, timeout_s: int) -> Entry:
        entry = Entry(self.counts["submitted"], self.clock.now + timeout_s)
        is_busy = self.counts["stuck"] == NUM_THREADS or len(self.queue) == QUEUE_SIZE
        try:
            entry.task = self.worker.submit(
                entry.gate, entry.number, timeout_s=timeout_s, name="call"
            )
        except WorkerBusy:
            assert is_busy
            self.counts["rejected"] += 1
            entry.fate = "rejected"
            return entry
        assert not is_busy
        self.counts["submitted"] += 1
        self.queue.append(entry)
        self.fill()
        return entry

    @rule(passed_s=st.integers(1, 4))
    def let_time_pass(self, passed_s: int) -> None:
        self.clock.now += passed_s
        self.fill()

    @rule(which=st.integers(0, NUM_THREADS - 1))
    def let_return(self, which: int) -> None:
        if which < len(self.running):
            entry = self.running.pop(which)
            entry.gate.opened.set()
            if entry.fate == "open":
                self.end(entry, "completed")
            self.fill()

    @rule(entry=entries)
    def take(self, entry: Entry) -> None:
        if entry.task is None or entry.fate == "open":
            return
        assert eventually(lambda: entry.task is not None and entry.task.is_done)
        if entry.is_taken:
            with pytest.raises(RuntimeError, match="taken before"):
                entry.task.take()
        elif entry.fate == "completed":
            assert entry.task.take() == entry.number
        else:
            with pytest.raises(DeadlineExceeded):
                entry.task.take()
        entry.is_taken = True

    @invariant()
    def counts_agree(self) -> None:
        assert eventually(lambda: self.worker.stats() == self.counts), self.worker.stats()
        assert len(set(worker_threads()) - self.before) <= NUM_THREADS

    def teardown(self) -> None:
        names = self.worker.close(0.0)
        assert names == ("call",) * len(self.running)
        for entry in [*self.running, *self.queue]:
            entry.gate.opened.set()
            if entry.fate == "open":
                assert entry.task is not None
                with pytest.raises(CancelledError):
                    entry.task.take()
        assert self.worker.close() == ()
        assert set(worker_threads()) <= self.before


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
