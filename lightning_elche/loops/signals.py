"""SIGTERM as a flag that ranks agree on, instead of a collective inside a signal handler."""

from __future__ import annotations

import signal
import threading
from types import FrameType

__all__ = ["StopSignal"]


class StopSignal:
    """Remembers that SIGTERM arrived. Lightning's own handler broadcasts, which needs all ranks."""

    def __init__(self) -> None:
        self._is_set = False

    def install(self) -> None:
        """Replace the handler of SIGTERM; only the main thread can."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._remember)

    def is_set(self) -> bool:
        """Return whether the signal has arrived."""
        return self._is_set

    def _remember(self, signum: int, frame: FrameType | None) -> None:
        del signum, frame
        self._is_set = True
