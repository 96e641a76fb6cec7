"""What a rank was asked for: to stop, to pause, to save; flags that any thread may set."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from lightning_elche.control.requests import StopCause
from lightning_elche.coordination.stopping.signals import SignalHandlers
from lightning_elche.coordination.stopping.stop import StopBudget, StopConfig

__all__ = ["RunControl"]


class RunControl:
    """The flags of one rank; all ranks hear of them at the next averaging event.

    A stop or a pause brings that event about at once. `strategy.control` is one of these.

    Args:
        clock: Seconds that only grow.

    Attributes:
        config: How to stop.
        budget: The time that the present stop has, once something keeps it.
        error: What this rank raises in the end, instead of its exit code.
        signals: The handlers that set the flags.
        is_paused: Whether the ranks wait for the end of a pause.
        has_met: Whether the ranks have agreed to stop, and all are at the same point.
        agreed: Why and in which words, once they have.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.config = StopConfig()
        self.signals = SignalHandlers(self.request_stop)
        self._lock = threading.RLock()  # a handler of a signal may interrupt a method
        self.reset()

    def __reduce__(self) -> tuple[type[RunControl], tuple[()]]:
        """Be a new one in another process, as for a launcher that sends the strategy there."""
        return RunControl, ()

    def reset(self) -> None:
        """Forget all requests, at the end of a fit."""
        with self._lock:
            self.budget: StopBudget | None = None
            self.error: Exception | None = None
            self.is_paused = self.has_met = False
            self._stop, self._reason = StopCause.NONE, ""
            self.agreed = (StopCause.NONE, "")
            self._requested_at: float | None = None
            self._pause = self._checkpoint = False

    @property
    def stop(self) -> StopCause:
        """Why the run is to end, `NONE` if it is not."""
        return self._stop

    @property
    def reason(self) -> str:
        """The same in words."""
        return self._reason

    @property
    def requested_at(self) -> float | None:
        """When a stop was first asked for, in seconds of the clock."""
        return self._requested_at

    @property
    def pause(self) -> bool:
        """Whether this rank wants all to wait."""
        return self._pause and not self._stop

    @property
    def checkpoint(self) -> bool:
        """Whether this rank wants a checkpoint."""
        return self._checkpoint

    def request_stop(
        self, cause: StopCause, reason: str = "", *, error: Exception | None = None
    ) -> None:
        """End the run at the next boundary of a step, on all ranks; of several causes one counts.

        Args:
            cause: Why; the smallest counts.
            reason: The same in words.
            error: What this rank raises then. Default: `SystemExit` with the code of the cause.
        """
        with self._lock:
            if self._requested_at is None:
                self._requested_at = self.clock()
            if self._stop is StopCause.NONE or cause < self._stop:
                self._stop, self._reason, self.error = cause, reason, error

    def request_pause(self, wanted: bool = True) -> None:
        """Let all ranks wait at the next averaging event until this is withdrawn.

        Args:
            wanted: `False` to go on.
        """
        self._pause = wanted

    def request_checkpoint(self, wanted: bool = True) -> None:
        """Save a checkpoint after the next averaging event.

        Args:
            wanted: `False` to withdraw it.
        """
        self._checkpoint = wanted

    def has_time_to_meet(self) -> bool:
        """Whether ranks may still be waited for; always so where nobody keeps the time."""
        return self.has_met or self.budget is None or self.clock() < self.budget.last_call
