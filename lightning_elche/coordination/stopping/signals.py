"""Handlers of signals that set a flag, and a descriptor that wakes a thread."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType, MethodType

from lightning_elche.control.requests import StopCause
from lightning_elche.coordination.stopping.stop import SIGNAL_CAUSES

__all__ = ["SignalHandlers", "WakeupPipe"]

IMPATIENT_S = 1.0
Handler = Callable[[int, FrameType | None], object] | int | None
RequestStop = Callable[[StopCause, str], object]


class SignalHandlers:
    """Lets signals ask for the end of a run, and calls handlers that were there before.

    Lightning's own handler of SIGTERM broadcasts, which needs all ranks at once. A second SIGINT, a
    second or more after the first, interrupts at once as it does without a handler. A second
    SIGTERM changes nothing, since launchers forward what each rank has got already.

    Args:
        request_stop: Called with the cause and the reason in words; must only set a flag.
        signals: Names of the signals.
    """

    def __init__(
        self, request_stop: RequestStop, signals: Sequence[str] = ("SIGTERM", "SIGINT")
    ) -> None:
        self._request_stop = request_stop
        self._causes: dict[int, StopCause] = {}
        self._earlier: dict[int, Handler] = {}
        self._interrupted_at: float | None = None
        self._is_active = False
        self._pid = os.getpid()
        self.watch(signals)

    def watch(self, signals: Sequence[str]) -> None:
        """Heed these signals from the next `install` on, by name."""
        self._causes = {int(signal.Signals[name]): SIGNAL_CAUSES[name] for name in signals}

    def keep_earlier(self) -> None:
        """Remember the handlers that are there now: they are called, too, and come back in the end.

        Before the Trainer installs its own, which must not be called.
        """
        for signum in self._causes:
            handler = signal.getsignal(signum)
            if not self._is_own(handler):
                self._earlier[signum] = handler

    def install(self) -> None:
        """Replace the handlers, until Lightning restores them; only the main thread can."""
        self._pid = os.getpid()
        if threading.current_thread() is threading.main_thread():
            self._is_active = True
            for signum in self._causes:
                signal.signal(signum, self._handle)

    def close(self) -> None:
        """Ask for nothing any more, and put the remembered handlers back."""
        self._is_active, self._interrupted_at = False, None
        if threading.current_thread() is not threading.main_thread():
            return
        for signum, handler in self._earlier.items():
            if self._is_own(signal.getsignal(signum)):
                signal.signal(signum, signal.SIG_DFL if handler is None else handler)

    def heed(self, signum: int) -> None:
        """Take in a signal of which the handler was not called yet; from any thread."""
        cause = self._causes.get(signum)
        if cause is not None and self._is_active:
            self._request_stop(cause, _in_words(signum))

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            return  # a forked DataLoader worker, which ends with this process
        if not self._is_active:
            self._pass_on(signum, frame)
            return
        self.heed(signum)
        # A signal to a group of processes ends DataLoader workers, too. PyTorch would raise an
        # error for each of them, wherever this process is; the DataLoader notices anyway.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        earlier = self._earlier.get(signum)
        if callable(earlier) and earlier is not signal.default_int_handler:
            earlier(signum, frame)
        if signum == signal.SIGINT:
            self._interrupt_if_again(time.monotonic())

    def _interrupt_if_again(self, now: float) -> None:
        if self._interrupted_at is not None and now - self._interrupted_at >= IMPATIENT_S:
            raise KeyboardInterrupt
        self._interrupted_at = self._interrupted_at or now

    def _pass_on(self, signum: int, frame: FrameType | None) -> None:
        """Do as the handler before this one: Lightning brings ours back at the end of a fit."""
        earlier = self._earlier.get(signum)
        if callable(earlier):
            earlier(signum, frame)
        elif earlier != signal.SIG_IGN:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)

    @staticmethod
    def _is_own(handler: object) -> bool:
        return isinstance(handler, MethodType) and isinstance(handler.__self__, SignalHandlers)


class WakeupPipe:
    """Tells another thread of a signal at once, even if the main thread is inside a collective.

    A Python handler runs only when the main thread runs Python. What was set before gets what
    arrives here, too.
    """

    def __init__(self) -> None:
        self.reader, self._writer = socket.socketpair()
        self.reader.setblocking(False)
        self._writer.setblocking(False)
        self._earlier = -1
        self._is_set = False
        if threading.current_thread() is threading.main_thread():
            self._earlier = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
            self._is_set = True

    def read(self) -> bytes:
        """Return the numbers of the signals that have arrived since the last call."""
        try:
            numbers = self.reader.recv(4096)
        except (BlockingIOError, OSError):
            return b""
        if numbers and self._earlier != -1:
            with contextlib.suppress(OSError):  # it is gone, or full
                os.write(self._earlier, numbers)
        return numbers

    def close(self) -> None:
        """Put back what was set before."""
        if self._is_set and threading.current_thread() is threading.main_thread():
            signal.set_wakeup_fd(self._earlier)
            self._is_set = False
        self.reader.close()
        self._writer.close()


def _in_words(signum: int) -> str:
    return f"{signal.Signals(signum).name} to process {os.getpid()}"
