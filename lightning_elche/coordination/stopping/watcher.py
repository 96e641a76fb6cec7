"""A thread that looks after what may stop a run, while the main thread trains."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from lightning_elche.control.requests import StopCause
from lightning_elche.coordination.stopping.commands import Command, read_command
from lightning_elche.coordination.stopping.run_control import RunControl
from lightning_elche.coordination.stopping.signals import WakeupPipe

__all__ = ["CommandFiles", "Deadline", "Watchdog", "Watcher"]

log = logging.getLogger(__name__)

FILES_PERIOD_S = 1.0
CLOSE_TIMEOUT_S = 2.0
FLUSH_S = 1.0
DeadlineOf = Callable[[], tuple[float | None, str]]


class Watcher:
    """Calls its checks at a fixed period, and at once when a signal arrives, until it is closed.

    What a check raises is logged once; the others go on. A second thread calls `exchange`, which
    talks to other ranks and may be held up by them.

    Args:
        checks: Called in order.
        period_s: Seconds between two calls.
        heed: Called with the number of each signal. Default: signals are not looked at.
        exchange: What to call in the second thread.
    """

    def __init__(
        self,
        checks: Sequence[Callable[[], object]],
        *,
        period_s: float,
        heed: Callable[[int], object] | None = None,
        exchange: Callable[[], object] | None = None,
    ) -> None:
        self._checks = tuple(checks)
        self._exchange = exchange
        self._period_s = period_s
        self._heed = heed
        self._pipe = WakeupPipe() if heed is not None else None
        self._waker, self._sleeper = socket.socketpair()
        self._closing, self._woken = threading.Event(), threading.Event()
        self._failed: set[Callable[[], object]] = set()
        self._threads = [threading.Thread(target=self._watch, name="elche-watch", daemon=True)]
        if exchange is not None:
            self._threads.append(
                threading.Thread(target=self._talk, name="elche-stop-link", daemon=True)
            )

    def start(self) -> None:
        """Start the threads; from the main thread, which alone can be told of signals."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End the threads; one that is held up is left behind."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._woken.set()
        with contextlib.suppress(OSError):
            self._waker.send(b"\0")
        for thread in self._threads:
            if thread.is_alive() and thread is not threading.current_thread():
                thread.join(CLOSE_TIMEOUT_S)
        if self._pipe is not None:
            self._pipe.close()
        self._waker.close()
        if not self._threads[0].is_alive():
            self._sleeper.close()

    def _watch(self) -> None:
        readers = [self._sleeper]
        if self._pipe is not None:
            readers.append(self._pipe.reader)
        while not self._closing.is_set():
            with contextlib.suppress(OSError, ValueError):  # closed meanwhile
                select.select(readers, [], [], self._period_s)
            if self._pipe is not None and self._heed is not None:
                for signum in self._pipe.read():
                    self._heed(signum)
                    self._woken.set()
            for check in self._checks:
                self._call(check)

    def _talk(self) -> None:
        assert self._exchange is not None
        while not self._closing.is_set():
            self._call(self._exchange)
            self._woken.wait(self._period_s)
            self._woken.clear()

    def _call(self, check: Callable[[], object]) -> None:
        try:
            check()
        except Exception:
            if check not in self._failed:
                self._failed.add(check)
                log.warning("A check beside the training has failed.", exc_info=True)


class CommandFiles:
    """Turns command files of a run into requests, once a second.

    Args:
        folder: Of the run.
        control: Gets the requests.
        clock: Seconds that only grow.

    Attributes:
        halt: The HALT that was found.
        checkpoint: The CHECKPOINT that was found last.
    """

    def __init__(
        self, folder: Path, control: RunControl, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder, self._control, self._clock = folder, control, clock
        self._next = 0.0
        self._is_pausing = False
        self.halt: Command | None = None
        self.checkpoint: Command | None = None

    def __call__(self) -> None:
        """Look, unless that was less than a second ago."""
        now = self._clock()
        if now < self._next:
            return
        self._next = now + FILES_PERIOD_S
        self._look()

    def _look(self) -> None:
        halt = read_command(self._folder, "HALT")
        if halt is not None and self.halt is None:
            self.halt = halt
            self._control.request_stop(StopCause.HALT, str(halt))
        is_pausing = read_command(self._folder, "PAUSE") is not None
        if is_pausing != self._is_pausing:  # so that others may pause, too
            self._is_pausing = is_pausing
            self._control.request_pause(is_pausing)
        checkpoint = read_command(self._folder, "CHECKPOINT")
        if checkpoint is not None and checkpoint != self.checkpoint:
            self._control.request_checkpoint()
        self.checkpoint = checkpoint


class Deadline:
    """Turns a moment by which the run must have ended into a request to stop.

    Args:
        due: Returns when to stop, in seconds of the clock, `None` if not; and the reason in words.
        control: Gets the request.
    """

    def __init__(self, due: DeadlineOf, control: RunControl) -> None:
        self._due, self._control = due, control

    def __call__(self) -> None:
        """Look at the clock."""
        due, reason = self._due()
        if due is not None and self._control.clock() >= due:
            self._control.request_stop(StopCause.DEADLINE, reason)


class Watchdog:
    """Ends the process when the time of a stop is up: then it hangs.

    Args:
        control: Has the budget of the stop.
        budget: Called when there is a stop without one; sets it.
        stacks: File that gets the stacks of all threads.
        flush: Called before the end, with a second of time.
        leave: Ends the process, given the exit code.
    """

    def __init__(
        self,
        control: RunControl,
        *,
        budget: Callable[[], object],
        stacks: Callable[[], Path],
        flush: Callable[[], object] | None = None,
        leave: Callable[[int], object] = os._exit,
    ) -> None:
        self._control = control
        self._budget, self._stacks, self._flush, self._leave = budget, stacks, flush, leave

    def __call__(self) -> None:
        """Look at the clock."""
        control = self._control
        if not control.stop:
            return
        if control.budget is None:
            self._budget()
        if control.budget is None or control.clock() < control.budget.t_end:
            return
        path = self._dump()
        log.error(
            "The run did not stop within %g s (%s: %s). It ends now. Stacks of its threads: %s.",
            control.budget.t_end - control.budget.began,
            control.stop.name,
            control.reason,
            path,
        )
        thread = threading.Thread(target=self._flush_all, daemon=True)
        thread.start()
        thread.join(FLUSH_S)
        self._leave(control.config.exit_code_of(control.stop))

    def _flush_all(self) -> None:
        try:
            if self._flush is not None:
                self._flush()
        finally:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()

    def _dump(self) -> Path:
        path = self._stacks()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("w", encoding="utf-8") as file:
                faulthandler.dump_traceback(file, all_threads=True)
        except OSError:
            log.exception("The stacks of the threads could not be written.")
        return path
