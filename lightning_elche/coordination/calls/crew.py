"""The tasks and threads that a worker has in one process."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from lightning_elche.coordination.calls.task import Status, Task, TaskTimeout, Token
from lightning_elche.exceptions import WorkerBusy

__all__ = ["Crew"]

KEPT_TIMEOUTS = 100

T = TypeVar("T")


class Crew:
    """Threads that take tasks from a queue, and end when it is empty.

    A deadline is noticed when somebody looks: nothing runs only to watch the time.

    Args:
        max_threads: Never more than these are alive.
        queue_size: Tasks that wait for a thread.

    Attributes:
        pid: The process whose threads they are.
    """

    def __init__(self, max_threads: int, queue_size: int) -> None:
        self.pid = os.getpid()
        self._max_threads, self._queue_size = max_threads, queue_size
        self._changed = threading.Condition()
        self._queue: deque[Task[Any]] = deque()
        self._threads: dict[threading.Thread, Task[Any] | None] = {}
        self._leaving: list[threading.Thread] = []
        self._runs: set[Task[Any]] = set()
        self._is_closed = False
        kinds = [status.value for status in Status if status not in (Status.QUEUED, Status.RUNNING)]
        self._counts = dict.fromkeys(["submitted", *kinds, "rejected"], 0)
        self._by_name: dict[str, float] = {}
        self._timeouts: deque[TaskTimeout] = deque(maxlen=KEPT_TIMEOUTS)

    def add(self, call: Callable[[Token], T], token: Token) -> Task[T]:
        """Queue a call, and return its task.

        Raises:
            WorkerBusy: If the queue is full, or all threads are stuck.
            RuntimeError: If the crew was closed.
        """
        task = Task(call, token, self._changed, self._expire)
        with self._changed:
            self._check_open()
            self._expire()
            try:
                self._check_room(token.name)
                self._queue.append(task)
                self._start_thread(token.name)
            except WorkerBusy:
                self._counts["rejected"] += 1
                raise
            self._counts["submitted"] += 1
        return task

    def run_here(self, call: Callable[[Token], T], token: Token) -> T:
        """Make a call on the thread of the caller, and return its value.

        Raises:
            RuntimeError: If the crew was closed.
            Exception: As `Task.take`.
        """
        task = Task(call, token, self._changed, self._expire)
        with self._changed:
            self._check_open()
            self._counts["submitted"] += 1
            task.begin()
            self._runs.add(task)
        status, outcome = Status.CANCELLED, None
        try:
            status, outcome = task.run()
        finally:  # an interrupt of this thread passes through
            with self._changed:
                self._finish(task, status, outcome)
                self._runs.remove(task)
                self._changed.notify_all()
        return task.take()

    def close(self, timeout_s: float) -> tuple[str, ...]:
        """Cancel all tasks, wait so long in total, and return the names of those still running."""
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            self._is_closed = True
            self._expire()
            for task in (*self._queue, *self._running()):
                task.token.cancel()
                if task.is_open:
                    self._settle(task, Status.CANCELLED)
            self._queue.clear()
            self._changed.notify_all()
            threads = [*self._threads, *self._leaving]
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline_s - time.monotonic()))
        with self._changed:
            remaining_s = max(0.0, deadline_s - time.monotonic())
            self._changed.wait_for(lambda: not self._runs, remaining_s)
            return tuple(task.name for task in self._running())

    def stats(self) -> dict[str, int]:
        """Return the number of tasks by what became of them, and of those stuck now."""
        with self._changed:
            self._expire()
            num_stuck = sum(not task.is_open for task in self._running())
            return {**self._counts, "stuck": num_stuck}

    def timeouts(self) -> dict[str, float]:
        """Return the number of timeouts by name, and as `<name>_last_ms` how long the last took."""
        with self._changed:
            self._expire()
            return dict(self._by_name)

    def take_timeouts(self) -> list[TaskTimeout]:
        """Return the timeouts since the last call, the last 100 of them."""
        with self._changed:
            self._expire()
            timeouts = list(self._timeouts)
            self._timeouts.clear()
            return timeouts

    # Below, the condition is held, but in `_work` while a task runs.

    def _check_open(self) -> None:
        if self._is_closed:
            raise RuntimeError("The worker was closed and takes no task any more.")

    def _check_room(self, name: str) -> None:
        num_stuck = sum(task is not None and not task.is_open for task in self._threads.values())
        if num_stuck == self._max_threads:
            raise WorkerBusy(name, f"all threads, {num_stuck}, are stuck in tasks given up")
        if len(self._queue) == self._queue_size:
            raise WorkerBusy(name, f"the queue is full, with {self._queue_size} tasks")

    def _start_thread(self, name: str) -> None:
        """Start a thread if there may be one more."""
        if len(self._threads) == self._max_threads:
            return
        while self._leaving:  # has nothing more to do than end; until then it counts
            self._leaving.pop().join()
        thread = threading.Thread(target=self._work, name="elche-worker", daemon=True)
        try:
            thread.start()
        except RuntimeError as err:
            self._queue.pop()
            raise WorkerBusy(name, f"no thread could be started ({err})") from err
        self._threads[thread] = None

    def _work(self) -> None:
        thread = threading.current_thread()
        while (task := self._next(thread)) is not None:
            status, outcome = Status.FAILED, None
            try:
                status, outcome = task.run()
            except BaseException as err:  # such as SystemExit: not to end who takes the value
                outcome = _raiser_of(err, task.name)
            with self._changed:
                self._finish(task, status, outcome)
                self._threads[thread] = None

    def _next(self, thread: threading.Thread) -> Task[Any] | None:
        with self._changed:
            self._expire()
            if not self._queue:
                del self._threads[thread]
                self._leaving.append(thread)
                return None
            task = self._threads[thread] = self._queue.popleft()
            task.begin()
            return task

    def _running(self) -> list[Task[Any]]:
        return [*(task for task in self._threads.values() if task is not None), *self._runs]

    def _expire(self) -> None:
        """Time out what has passed its deadline."""
        late = [task for task in (*self._queue, *self._running()) if task.is_open]
        late = [task for task in late if task.token.is_expired]
        for task in late:
            self._settle(task, Status.TIMED_OUT)
            if not task.has_started:
                self._queue.remove(task)

    def _finish(self, task: Task[Any], status: Status, outcome: Callable[[], Any] | None) -> None:
        """Take in that a call has returned; a late value is dropped."""
        self._expire()
        if task.is_open:
            self._settle(task, status, outcome)
        self._changed.notify_all()

    def _settle(
        self, task: Task[Any], status: Status, outcome: Callable[[], Any] | None = None
    ) -> None:
        task.settle(status, outcome)
        self._counts[status.value] += 1
        waited_ms = 1000.0 * task.waited_s
        if status in (Status.COMPLETED, Status.TIMED_OUT):
            self._by_name.setdefault(task.name, 0.0)
            self._by_name[f"{task.name}_last_ms"] = waited_ms
        if status is Status.TIMED_OUT:
            self._by_name[task.name] += 1.0
            assert task.token.timeout_s is not None
            timeout = TaskTimeout(
                name=task.name,
                timeout_ms=1000.0 * task.token.timeout_s,
                waited_ms=waited_ms,
                was_queued=not task.has_started,
            )
            self._timeouts.append(timeout)


def _raiser_of(err: BaseException, name: str) -> Callable[[], NoReturn]:
    def raise_error() -> NoReturn:
        raise RuntimeError(f"Task {name!r} raised {err!r}, which would end the process.") from err

    return raise_error
