"""The states of a run and of each of its parts, and which of them follow each other; pure."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import asdict, dataclass

__all__ = ["ALLOWED", "Lifecycle", "LifecycleStats", "RunState", "is_healthy"]

MAX_ERRORS, MAX_ERROR_RATIO = 10, 0.10


class RunState(enum.Enum):
    """Where a run, or a part of it, is."""

    INITIALIZING = "INITIALIZING"
    READY = "READY"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    DRAINING = "DRAINING"
    ERROR = "ERROR"
    STOPPED = "STOPPED"


ALLOWED = {
    RunState.INITIALIZING: (RunState.READY, RunState.STOPPED, RunState.ERROR),
    RunState.READY: (RunState.RUNNING, RunState.DRAINING, RunState.STOPPED, RunState.ERROR),
    RunState.RUNNING: (RunState.PAUSED, RunState.DRAINING, RunState.ERROR),
    RunState.PAUSED: (RunState.RUNNING, RunState.DRAINING, RunState.ERROR),
    RunState.DRAINING: (RunState.STOPPED, RunState.ERROR),
    RunState.ERROR: (RunState.DRAINING, RunState.STOPPED),
    RunState.STOPPED: (),
}
AT_WORK = (RunState.READY, RunState.RUNNING, RunState.PAUSED)


@dataclass(frozen=True, kw_only=True)
class LifecycleStats:
    """What is known of a part of a run.

    Attributes:
        name: Of the part.
        state: Name of the state.
        is_running: Whether that is RUNNING.
        uptime_s: Seconds since it first was; 0.0 before.
        operations: How many were counted.
        errors: How many of them have failed.
        last_operation_s: When the last one was, in seconds of the clock; `None` if there was none.
        last_error: What failed last; "" if nothing did.
    """

    name: str
    state: str
    is_running: bool
    uptime_s: float
    operations: int
    errors: int
    last_operation_s: float | None
    last_error: str

    def to_dict(self) -> dict[str, object]:
        """Return it as a JSON-serialisable mapping."""
        return asdict(self)


class Lifecycle:
    """The state of a run, or of a part of it, and a count of what it does.

    Args:
        name: Of the part.
        clock: Seconds that only grow.
    """

    def __init__(self, name: str, clock: Callable[[], float]) -> None:
        self.name = name
        self._clock = clock
        self._state = RunState.INITIALIZING
        self._started: float | None = None
        self._operations = self._errors = 0
        self._last_operation: float | None = None
        self._last_error = ""

    @property
    def state(self) -> RunState:
        """The present state."""
        return self._state

    def to(self, state: RunState) -> bool:
        """Go to another state, and return whether it is another one.

        Raises:
            RuntimeError: If it may not follow the present one.
        """
        if state is self._state:
            return False
        allowed = ALLOWED[self._state]
        if state not in allowed:
            names = ", ".join(one.name for one in allowed) or "none"
            raise RuntimeError(
                f"`state` cannot go from {self._state.name} to {state.name}. Allowed: {names}."
            )
        self._state = state
        if state is RunState.RUNNING and self._started is None:
            self._started = self._clock()
        return True

    def start(self, begin: Callable[[], object]) -> None:
        """Call `begin`, and be RUNNING once it has succeeded; otherwise ERROR."""
        if self._state is RunState.INITIALIZING:
            self.to(RunState.READY)
        try:
            begin()
        except BaseException as err:
            self.failed(err)
            self.to(RunState.ERROR)
            raise
        self.to(RunState.RUNNING)

    def close(self, stop: Callable[[], object], close: Callable[[], object]) -> None:
        """Call `stop`, then `close` even if that has failed, and be STOPPED; twice is once."""
        if self._state is RunState.STOPPED:
            return
        if self._state is not RunState.INITIALIZING:
            self.to(RunState.DRAINING)
        try:
            stop()
        except BaseException as err:
            self.failed(err)
            raise
        finally:
            try:
                close()
            finally:
                self.to(RunState.STOPPED)

    def done(self, count: int = 1) -> None:
        """Count operations that have succeeded."""
        self._operations += count
        self._last_operation = self._clock()

    def failed(self, err: BaseException) -> None:
        """Count an operation that has failed."""
        self.done()
        self._errors += 1
        self._last_error = f"{type(err).__name__}: {err}"

    @property
    def is_healthy(self) -> bool:
        """Whether it is at work, and little of what it did has failed."""
        return is_healthy(self._state, operations=self._operations, errors=self._errors)

    def stats(self) -> LifecycleStats:
        """Return what is known."""
        uptime_s = 0.0 if self._started is None else self._clock() - self._started
        return LifecycleStats(
            name=self.name,
            state=self._state.name,
            is_running=self._state is RunState.RUNNING,
            uptime_s=round(uptime_s, 2),
            operations=self._operations,
            errors=self._errors,
            last_operation_s=self._last_operation,
            last_error=self._last_error,
        )

    def __repr__(self) -> str:
        return f"Lifecycle({self.name!r}, {self._state.name})"


def is_healthy(state: RunState, *, operations: int, errors: int) -> bool:
    """Return whether a part is at work, with fewer than 10 errors or 10 % of its operations."""
    few = errors < MAX_ERRORS or errors / max(operations, 1) < MAX_ERROR_RATIO
    return state in AT_WORK and few
