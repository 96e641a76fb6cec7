"""Starts processes that belong together, and ends all of them if one fails or takes too long."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

POLL_S = 0.05
GRACE_S = 3.0
TAIL_LINES = 30


@dataclass(frozen=True, kw_only=True)
class Command:
    """What one rank runs.

    Attributes:
        arguments: The program and its arguments.
        environment: Variables on top of those of this process.
        core: The core it may use.
    """

    arguments: Sequence[str]
    environment: Mapping[str, str]
    core: int


class RankFailed(RuntimeError):
    """Reports that processes failed or took too long, with the end of their output."""


def run_together(commands: Sequence[Command], *, timeout_s: float, folder: Path) -> None:
    """Run one process per command, each in a session of its own, until all have ended.

    Args:
        commands: What to run, in rank order.
        timeout_s: When to end all of them.
        folder: Where their output goes.

    Raises:
        RankFailed: If one ends with an error, or if the time is over.
    """
    processes: list[subprocess.Popen[bytes]] = []
    logs = [folder / f"rank{rank}.log" for rank in range(len(commands))]
    try:
        for command, log in zip(commands, logs, strict=True):
            processes.append(start(command, log))
        _wait(processes, logs, timeout_s=timeout_s)
    finally:
        for process in processes:
            end(process)


def start(command: Command, log: Path) -> subprocess.Popen[bytes]:
    """Start `command` on its core; threads it starts later stay there too."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command.arguments,
            env={**os.environ, **command.environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    with contextlib.suppress(ProcessLookupError):  # it may have ended; `_wait` will see
        os.sched_setaffinity(process.pid, {command.core})
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill the process with all that it started, and collect it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def leave() -> NoReturn:
    """End this process with exit code 0, by way of no destructor.

    DDP may keep Gloo alive until the interpreter is torn down. A thread of Gloo that then lets go
    of its last tensor asks for the GIL, and hangs or aborts the process: PyTorch issue 190489.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _wait(
    processes: Sequence[subprocess.Popen[bytes]], logs: Sequence[Path], *, timeout_s: float
) -> None:
    deadline = time.monotonic() + timeout_s
    while None in (codes := [process.poll() for process in processes]):
        if any(codes):
            time.sleep(GRACE_S)  # for the rank that failed because another one did
            break
        if time.monotonic() > deadline:
            break
        time.sleep(POLL_S)
    problems = [
        f"rank {rank} {outcome}; the end of its output:\n{tail_of(log)}"
        for rank, (process, log) in enumerate(zip(processes, logs, strict=True))
        if (outcome := _outcome(process.poll(), timeout_s))
    ]
    if problems:
        raise RankFailed("\n".join(problems))


def _outcome(code: int | None, timeout_s: float) -> str:
    if code is None:
        return f"had not ended after {timeout_s:.0f} s, or when another had failed"
    return f"ended with exit code {code}" if code else ""


def tail_of(log: Path) -> str:
    """Return the last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-TAIL_LINES:])
