"""Calls with a deadline, on threads that never hold up the end of the process."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from lightning_elche.coordination.calls.crew import Crew
from lightning_elche.coordination.calls.isolated import call_isolated
from lightning_elche.coordination.calls.task import Task, TaskTimeout, Token

if TYPE_CHECKING:
    from typing_extensions import TypeVarTuple, Unpack

    Ts = TypeVarTuple("Ts")

__all__ = ["DeadlineWorker"]

T = TypeVar("T")


class DeadlineWorker:
    """Runs what waits for disks or networks beside the training thread, each call with a deadline.

    A thread cannot be killed: a call that does not return keeps its thread, is counted as stuck,
    and its late value is dropped. `run` uses a process instead, which can. Threads are daemons
    that live only while there is something to do, and number at most `max_threads`.

    Args:
        max_threads: Calls that run at the same time.
        queue_size: Calls that wait for a thread.
        close_timeout_s: Seconds that `close` waits by default.
        clock: Seconds that only grow; deadlines are read from it.

    Example:
        >>> from lightning_elche.coordination import DeadlineWorker
        >>> worker = DeadlineWorker()
        >>> task = worker.submit(lambda _, x: 2 * x, 21, timeout_s=5.0, name="double")
        >>> task.take()
        42
        >>> worker.close()
        ()
    """

    def __init__(
        self,
        *,
        max_threads: int = 2,
        queue_size: int = 64,
        close_timeout_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if max_threads < 1:
            raise ValueError(f"`max_threads` must be >= 1, got {max_threads}.")
        if queue_size < 1:
            raise ValueError(f"`queue_size` must be >= 1, got {queue_size}.")
        if not close_timeout_s >= 0.0:
            raise ValueError(f"`close_timeout_s` must be >= 0, got {close_timeout_s}.")
        self._close_timeout_s, self._clock = close_timeout_s, clock
        self._new_crew = partial(Crew, max_threads, queue_size)
        self._crew = self._new_crew()

    def submit(
        self,
        fn: Callable[[Token, Unpack[Ts]], T],
        *args: Unpack[Ts],
        timeout_s: float | None,
        name: str,
    ) -> Task[T]:
        """Call `fn(token, *args)` on a thread, and return at once.

        Args:
            fn: May ask the token whether to go on.
            *args: Passed on.
            timeout_s: Seconds from now that it has, waiting for a thread included; a call that
                has not begun by then never begins. `None` for no deadline.
            name: What kind of task it is, for messages and counts.

        Raises:
            WorkerBusy: If the queue is full, or all threads are stuck.
            RuntimeError: If the worker was closed.
            ValueError: If `timeout_s` is not > 0.
        """
        token = self._new_token(name, timeout_s)
        return self._here().add(lambda token: fn(token, *args), token)

    def run(
        self,
        fn: Callable[[Unpack[Ts]], T],
        *args: Unpack[Ts],
        timeout_s: float | None,
        name: str,
    ) -> T:
        """Call `fn(*args)` in a process of its own, wait, and return its value.

        When the time is up the process is ended, by force if need be, with those it has started.

        Args:
            fn: Function of an importable module, not of the script that runs. The process imports
                that module and nothing of the present state.
            *args: Picklable, as must be the value.
            timeout_s: Seconds that it has; `None` for no deadline.
            name: What kind of task it is, for messages and counts.

        Raises:
            DeadlineExceeded: If it was not over by the deadline.
            CancelledError: If the worker was closed meanwhile.
            RuntimeError: If the worker was closed, or the process ended without a value.
            TypeError: If `fn` or `args` cannot be pickled.
            ValueError: If `timeout_s` is not > 0, or `fn` is part of the script.
            Exception: What `fn` raised.
        """
        token = self._new_token(name, timeout_s)
        return self._here().run_here(lambda token: call_isolated(token, fn, args), token)

    def close(self, timeout_s: float | None = None) -> tuple[str, ...]:
        """Cancel everything, wait for what runs, and return the names of what still does.

        Args:
            timeout_s: Seconds to wait in total. Default: `close_timeout_s`.
        """
        return self._here().close(self._close_timeout_s if timeout_s is None else timeout_s)

    def stats(self) -> dict[str, int]:
        """Return the number of tasks by what became of them, and of those stuck now."""
        return self._here().stats()

    def timeouts(self) -> dict[str, float]:
        """Return the number of timeouts by name, and as `<name>_last_ms` how long the last took."""
        return self._here().timeouts()

    def take_timeouts(self) -> list[TaskTimeout]:
        """Return the timeouts since the last call, the last 100 of them."""
        return self._here().take_timeouts()

    def _new_token(self, name: str, timeout_s: float | None) -> Token:
        if timeout_s is not None and not 0.0 < timeout_s <= threading.TIMEOUT_MAX:
            raise ValueError(f"`timeout_s` must be > 0 and finite, or None, got {timeout_s}.")
        return Token(name, timeout_s, self._clock)

    def _here(self) -> Crew:
        """Return the crew of this process; a forked one has none of its parent's threads."""
        if self._crew.pid != os.getpid():
            self._crew = self._new_crew()
        return self._crew
