"""A call with a deadline: what its caller holds, and what the call itself may ask."""

from __future__ import annotations

import enum
import os
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Generic, NoReturn, TypeVar

from lightning_elche.exceptions import DeadlineExceeded

__all__ = ["Status", "Task", "TaskTimeout", "Token"]

T = TypeVar("T")


class Status(enum.Enum):
    """What became of a task; the first two may still change."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"


@dataclass(frozen=True, kw_only=True)
class TaskTimeout:
    """A task that was not over by its deadline.

    Attributes:
        name: Of the task.
        timeout_ms: What it had.
        waited_ms: From its submission until this was noticed.
        was_queued: Whether it never began.
    """

    name: str
    timeout_ms: float
    waited_ms: float
    was_queued: bool


class Token:
    """Tells a running task whether somebody still waits for it. A task that never asks runs on.

    Args:
        name: Of the task.
        timeout_s: Seconds that it has from now on; `None` for no deadline.
        clock: Seconds that only grow.
    """

    def __init__(self, name: str, timeout_s: float | None, clock: Callable[[], float]) -> None:
        self.name, self.timeout_s, self._clock = name, timeout_s, clock
        self._begun_s = clock()
        self._has_been_cancelled = False

    @property
    def is_expired(self) -> bool:
        """Whether the deadline has passed."""
        return self.remaining_s() == 0.0

    @property
    def is_cancelled(self) -> bool:
        """Whether the value would be dropped: the worker was closed, or the deadline has passed."""
        return self._has_been_cancelled or self.is_expired

    def elapsed_s(self) -> float:
        """Return the seconds since the task was submitted."""
        return self._clock() - self._begun_s

    def remaining_s(self) -> float | None:
        """Return the seconds until the deadline, 0 when it has passed; `None` without one."""
        if self.timeout_s is None:
            return None
        return max(0.0, self.timeout_s - self.elapsed_s())

    def check(self) -> None:
        """Return if the task should go on.

        Raises:
            CancelledError: If the worker was closed.
            DeadlineExceeded: If the deadline has passed.
        """
        if self.is_cancelled:
            raise self.reason()

    def reason(self) -> CancelledError | DeadlineExceeded:
        """Return the error that says why the task should end."""
        if self.timeout_s is None or not self.is_expired:
            return CancelledError(f"Task {self.name!r} was cancelled: its worker was closed.")
        return DeadlineExceeded(self.name, self.timeout_s)

    def cancel(self) -> None:
        """Ask the task to end."""
        self._has_been_cancelled = True


class Task(Generic[T]):
    """What became of a submitted call; made by `DeadlineWorker.submit`.

    Args:
        call: Is given the token.
        token: Knows the deadline.
        changed: Held while a task of the worker changes, notified afterwards.
        expire: Times out what has passed its deadline; called while `changed` is held.

    Attributes:
        token: As given.
        status: What became of it so far.
        has_started: Whether the call has begun.
    """

    def __init__(
        self,
        call: Callable[[Token], T],
        token: Token,
        changed: threading.Condition,
        expire: Callable[[], None],
    ) -> None:
        self.token = token
        self.status = Status.QUEUED
        self.has_started = False
        self._call: Callable[[Token], T] | None = call
        self._changed, self._expire = changed, expire
        self._pid = os.getpid()
        self._waited_s: float | None = None
        self._outcome: Callable[[], T] | None = None

    @property
    def name(self) -> str:
        """As it was submitted."""
        return self.token.name

    @property
    def is_open(self) -> bool:
        """Whether it may still end one way or another."""
        return self.status in (Status.QUEUED, Status.RUNNING)

    @property
    def is_done(self) -> bool:
        """Whether `take` would return or raise at once."""
        self._check_process()
        with self._changed:
            self._expire()
            return not self.is_open

    @property
    def waited_s(self) -> float:
        """Seconds from its submission to its end, or until now."""
        return self.token.elapsed_s() if self._waited_s is None else self._waited_s

    def take(self) -> T:
        """Wait for the value, at most until the deadline, and give it away.

        Raises:
            DeadlineExceeded: If it was not there by the deadline.
            CancelledError: If the worker was closed before.
            RuntimeError: If it was taken before, or in another process.
            Exception: What the task raised.
        """
        self._check_process()
        with self._changed:
            self._expire()
            while self.is_open:
                self._changed.wait(self.token.remaining_s())
                self._expire()
            outcome, self._outcome = self._outcome, None
        if outcome is None:
            raise RuntimeError(f"Task {self.name!r} was taken before; its value is given once.")
        return outcome()

    def run(self) -> tuple[Status, Callable[[], T]]:
        """Make the call, and return how it ended and what gives or raises it; for the worker."""
        call, self._call = self._call, None
        assert call is not None
        try:
            value = call(self.token)
        except Exception as err:  # raised again by who takes it
            return Status.FAILED, _raiser(err)
        return Status.COMPLETED, lambda: value

    def begin(self) -> None:
        """Note that the call begins, while `changed` is held; for the worker."""
        self.status, self.has_started = Status.RUNNING, True

    def settle(self, status: Status, outcome: Callable[[], T] | None = None) -> None:
        """Fix how it ended, while `changed` is held; for the worker."""
        self.status, self._waited_s, self._call = status, self.token.elapsed_s(), None
        self._outcome = outcome or _raiser(self.token.reason())

    def _check_process(self) -> None:
        # The lock may have been held at the moment of the fork, forever from this side.
        if os.getpid() != self._pid:
            raise RuntimeError(
                f"Task {self.name!r} belongs to process {self._pid}, and this is {os.getpid()}: "
                "it was forked, and has no threads of its own. Submit the task here."
            )


def _raiser(err: Exception) -> Callable[[], NoReturn]:
    def raise_error() -> NoReturn:
        raise err

    return raise_error
