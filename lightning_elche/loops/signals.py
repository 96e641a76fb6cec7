"""Signals as a flag that ranks agree on, instead of a collective inside a signal handler."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType

from lightning_elche.control.requests import StopCause, first_cause

__all__ = ["StopSignal"]

CAUSES = {signal.SIGTERM: StopCause.SIGTERM, signal.SIGINT: StopCause.SIGINT}
IMPATIENT_S = 1.0


class StopSignal:
    """Remembers that SIGTERM or SIGINT arrived.

    Lightning's own handler of SIGTERM broadcasts, which needs all ranks at once. A second SIGINT, a
    second or more after the first, interrupts at once as it does without a handler.
    """

    def __init__(self) -> None:
        self._cause = StopCause.NONE
        self._interrupted_at: float | None = None
        self._pid = os.getpid()

    @property
    def cause(self) -> StopCause:
        """Which signal has arrived, if any."""
        return self._cause

    def install(self) -> None:
        """Replace the handlers, until Lightning restores them; only the main thread can."""
        if threading.current_thread() is threading.main_thread():
            for signum in CAUSES:
                signal.signal(signum, self._remember)

    def _remember(self, signum: int, frame: FrameType | None) -> None:
        del frame
        if os.getpid() != self._pid:
            return  # a forked DataLoader worker, which ends with this process
        cause, now = CAUSES[signal.Signals(signum)], time.monotonic()
        self._cause = first_cause((self._cause, cause))
        # A signal to a group of processes ends DataLoader workers, too. PyTorch would raise an
        # error for each of them, wherever this process is; the DataLoader notices anyway.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if cause is not StopCause.SIGINT:
            return
        if self._interrupted_at is not None and now - self._interrupted_at >= IMPATIENT_S:
            raise KeyboardInterrupt
        self._interrupted_at = self._interrupted_at or now
