"""A command that is a process already, but begins only once it may."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from typing import NoReturn

from lightning_elche.coordination.registry.liveness import Process, process_at

__all__ = ["HeldCommand", "Interrupted"]

PASSED_ON = frozenset(
    {
        signal.SIGHUP,
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGTERM,
        signal.SIGUSR1,
        signal.SIGUSR2,
    }
)
HEARD = PASSED_ON | {signal.SIGCHLD}
FROM_TERMINAL = 0x80  # SI_KERNEL: the terminal has told the whole process group, the command too
PR_SET_PDEATHSIG = 1
CANNOT_RUN, NOT_FOUND = 126, 127  # as in a shell
BY_SIGNAL = 128
MAX_BYTES = 4096  # what a pipe takes at once


class Interrupted(Exception):
    """This process was told to end before the command had begun.

    Attributes:
        exit_code: Of this process then.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = BY_SIGNAL + number


class HeldCommand:
    """A child that waits, and then becomes a command; so its process is known before it begins.

    Signals to this process are passed on to it, and when this process is gone, however it ended,
    the command is told to end. To be made before anything else is opened, by the main thread.

    Args:
        command: The program and its arguments.
    """

    def __init__(self, command: Sequence[str]) -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # or, if ignored, no child is waited for
        self._old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)
        gate, self._gate = os.pipe()
        libc, parent = ctypes.CDLL(None), os.getpid()
        self.pid = os.fork()
        if not self.pid:
            os.close(self._gate)
            _become(command, gate, libc, parent, self._old_mask)
        os.close(gate)
        self._has_ended = False
        self.last_signal: int | None = None

    @property
    def process(self) -> Process:
        """The process, which will be that of the command."""
        return process_at(self.pid)

    def wait_to_begin(self, seconds: float) -> None:
        """Wait, but not for the command.

        Raises:
            Interrupted: If this process is told to end.
        """
        deadline_s = time.monotonic() + seconds
        while (left_s := deadline_s - time.monotonic()) > 0.0:
            heard = signal.sigtimedwait(PASSED_ON, left_s)
            if heard is not None:
                raise Interrupted(heard.si_signo)

    def run(self, variables: Mapping[str, str]) -> int:
        """Let the command begin, pass on signals, and return its exit code, as a shell has it.

        Args:
            variables: To be added to its environment.
        """
        os.write(self._gate, json.dumps(dict(variables)).encode())
        while True:
            heard = signal.sigwaitinfo(HEARD)
            if heard.si_signo == signal.SIGCHLD:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self._has_ended = True
                    code = os.waitstatus_to_exitcode(status)
                    return code if code >= 0 else BY_SIGNAL - code
            else:
                self.last_signal = heard.si_signo
                if heard.si_code != FROM_TERMINAL:
                    os.kill(self.pid, heard.si_signo)

    def close(self) -> None:
        """Let go of the child; one that has not begun ends."""
        os.close(self._gate)
        if not self._has_ended:
            os.waitpid(self.pid, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._old_mask)


def _become(
    command: Sequence[str],
    gate: int,
    libc: ctypes.CDLL,
    parent: int,
    mask: set[int | signal.Signals],
) -> NoReturn:
    """Wait in the child until the gate opens, then be the command; never returns."""
    try:
        libc.prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGTERM))
        told = os.read(gate, MAX_BYTES)
        if not told or os.getppid() != parent:
            os._exit(0)
        os.environ.update(json.loads(told))
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.execvp(command[0], list(command))
    except OSError as err:
        print(f"elche: {command[0]}: {err.strerror}", file=sys.stderr, flush=True)
        os._exit(NOT_FOUND if isinstance(err, FileNotFoundError) else CANNOT_RUN)
    finally:
        os._exit(CANNOT_RUN)
