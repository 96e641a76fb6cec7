"""Tells the outside world what happened, in order, without waiting for it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

from lightning_elche.coordination.breaker import Breaker, BreakerConfig, BreakerState
from lightning_elche.exceptions import DeadlineExceeded

if TYPE_CHECKING:
    from lightning_elche.coordination.calls.task import Task, Token
    from lightning_elche.coordination.calls.worker import DeadlineWorker

__all__ = ["PublishEvent", "Publisher"]

MAX_PENDING = 100
MINUTE_S = 60.0
# A signal that waits is of interest soon or never: always the same short pause, and one try.
BREAKER = BreakerConfig(
    failures=3, recovery_s=30.0, backoff=1.0, max_recovery_s=30.0, jitter=0.0, half_open_max=1
)

S = TypeVar("S")


@dataclass(frozen=True, kw_only=True)
class PublishEvent(Generic[S]):
    """A signal that was not delivered.

    Attributes:
        kind: "dispatch_timeout", or "dispatch_error" for everything else.
        signal: What was to be told.
        error_type: Class name of the error; "WorkerBusy" if the worker did not take the call.
        error: Its text.
        waited_ms: From dispatch to the error.
        breaker_state: After this failure.
    """

    kind: Literal["dispatch_error", "dispatch_timeout"]
    signal: S
    error_type: str
    error: str
    waited_ms: float
    breaker_state: BreakerState


@dataclass(frozen=True)
class _Call(Generic[S]):
    """A signal on its way, and where it waits again if the call never started."""

    signal: S
    task: Task[object]
    waiting: deque[S]


class Publisher(Generic[S]):
    """Hands signals to a function that may be slow, hang or raise, on a worker's thread.

    One signal is on its way at a time, so that they arrive in order; those that wait number at
    most 100, of which the oldest is dropped for a new one. After three failures in a row none is
    sent for 30 seconds. A signal whose call failed is not sent again, one whose call never began
    is. All methods are called by one thread, and none raises what the function raised.

    Args:
        publish: Is given each signal; what it returns is ignored.
        worker: Calls it.
        timeout_s: Seconds that a call has; a call that takes longer counts as failed.
        per_min: Signals taken in any minute; further ones are dropped.
        clock: Seconds that only grow.

    Example:
        >>> from lightning_elche.coordination import DeadlineWorker, Publisher
        >>> told = []
        >>> worker = DeadlineWorker()
        >>> publisher = Publisher(told.append, worker, timeout_s=2.0)
        >>> publisher.send("halt", must_go=True)
        >>> publisher.flush()
        >>> publisher.poll(), told, publisher.stats()["broadcasts"]
        ([], ['halt'], 1.0)
        >>> worker.close()
        ()
    """

    def __init__(
        self,
        publish: Callable[[S], object],
        worker: DeadlineWorker,
        *,
        timeout_s: float = 2.0,
        per_min: int = 60,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not timeout_s > 0.0:
            raise ValueError(f"`timeout_s` must be > 0, got {timeout_s}.")
        if per_min < 1:
            raise ValueError(f"`per_min` must be >= 1, got {per_min}.")
        self._publish, self._worker = publish, worker
        self._timeout_s, self._per_min, self._clock = timeout_s, per_min, clock
        self._breaker = Breaker(BREAKER)
        self._taken_s: deque[float] = deque()  # when signals were taken, of the last minute
        self._pending: deque[S] = deque()
        self._urgent: deque[S] = deque()  # could not go when they had to
        self._under_way: list[_Call[S]] = []
        self._events: list[PublishEvent[S]] = []
        self._broadcasts = self._failures = self._dropped = 0
        self._last_ms = 0.0

    @property
    def breaker_state(self) -> BreakerState:
        """Whether signals are sent, now."""
        return self._breaker.state(self._clock())

    def send(self, signal: S, *, must_go: bool = False) -> None:
        """Take a signal, to be sent when its turn has come.

        Args:
            signal: What to tell.
            must_go: Send it now, whatever the rate, the breaker and the queue say.
        """
        self._collect()
        now = self._clock()
        while self._taken_s and now - self._taken_s[0] >= MINUTE_S:
            self._taken_s.popleft()
        if len(self._taken_s) >= self._per_min and not must_go:
            self._dropped += 1
            return
        self._taken_s.append(now)
        if must_go:
            self._dispatch(signal, self._urgent)
            return
        self._pending.append(signal)
        self._send_next()
        if len(self._pending) > MAX_PENDING:
            self._pending.popleft()
            self._dropped += 1

    def poll(self) -> list[PublishEvent[S]]:
        """Return what went wrong since the last call, and send what waits; never waits itself."""
        self._collect()
        self._send_next()
        events, self._events = self._events, []
        return events

    def flush(self) -> None:
        """Wait until nothing is on its way, at most `timeout_s`; what is pending stays so."""
        while self._under_way:
            self._settle(self._under_way.pop(0))

    def reset(self) -> None:
        """Close the breaker and forget the rate; what is pending and the counts stay."""
        self._breaker.reset(self._clock())
        self._taken_s.clear()

    def stats(self) -> dict[str, float]:
        """Return the counts since the beginning, the last latency and the breaker's state."""
        return {
            "broadcasts": float(self._broadcasts),
            "broadcast_failures": float(self._failures),
            "dropped": float(self._dropped),
            "last_broadcast_ms": self._last_ms,
            "breaker_state": float(self.breaker_state),
        }

    def _send_next(self) -> None:
        is_open = self.breaker_state is BreakerState.OPEN
        waiting = self._urgent or self._pending
        if waiting and not self._under_way and not is_open:
            self._dispatch(waiting.popleft(), waiting)

    def _dispatch(self, signal: S, waiting: deque[S]) -> None:
        """Start the call; a signal that the worker does not take goes back to where it waits."""
        try:
            task: Task[object] = self._worker.submit(
                _deliver, self._publish, signal, timeout_s=self._timeout_s, name="publish"
            )
        except RuntimeError as err:  # the worker is busy or closed
            waiting.appendleft(signal)
            self._note(signal, err, waited_ms=0.0)
        else:
            self._under_way.append(_Call(signal, task, waiting))

    def _collect(self) -> None:
        calls, self._under_way = self._under_way, []
        for call in calls:
            if call.task.is_done:
                self._settle(call)
            else:
                self._under_way.append(call)

    def _settle(self, call: _Call[S]) -> None:
        """Wait for the end of the call, and count it."""
        try:
            call.task.take()
        except Exception as err:  # whatever the user's function raises is data here
            self._note(call.signal, err, waited_ms=1000.0 * call.task.waited_s)
            if not call.task.has_started:
                call.waiting.appendleft(call.signal)
        else:
            self._broadcasts += 1
            # Also one that had to go while it was open: what has arrived can be told again.
            self._breaker.reset(self._clock())
        self._last_ms = 1000.0 * call.task.waited_s

    def _note(self, signal: S, err: Exception, *, waited_ms: float) -> None:
        self._failures += 1
        self._breaker.fail(self._clock())
        is_late = isinstance(err, DeadlineExceeded)
        event = PublishEvent(
            kind="dispatch_timeout" if is_late else "dispatch_error",
            signal=signal,
            error_type=type(err).__name__,
            error=str(err),
            waited_ms=waited_ms,
            breaker_state=self.breaker_state,
        )
        self._events.append(event)


def _deliver(token: Token, publish: Callable[[S], object], signal: S) -> object:
    del token  # the user's function does not ask
    return publish(signal)
