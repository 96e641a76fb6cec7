"""Which processes still live, told without a doubt where it can be."""

from __future__ import annotations

import functools
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Process", "here", "is_alive", "own_process", "process_at", "started_at"]

PROC = Path("/proc")
STATE, NUM_THREADS, START_TIME = 0, 17, 19  # fields of /proc/<pid>/stat, after the name


@dataclass(frozen=True, kw_only=True)
class Process:
    """One process, of all that there ever were.

    Attributes:
        pid: Its number.
        started: When it started, in units that only tell two processes of one number apart.
        boot: Of which boot of which machine.
        pid_namespace: Where its number counts: that of a container, or of the machine.
    """

    pid: int
    started: str
    boot: str
    pid_namespace: str


def own_process() -> Process:
    """Return this process."""
    return process_at(os.getpid())


def process_at(pid: int) -> Process:
    """Return the process that has a number here and now.

    Raises:
        ProcessLookupError: If there is none.
    """
    started = started_at(pid)
    if started is None:
        raise ProcessLookupError(f"There is no process {pid}.")
    boot, namespace = here()
    return Process(pid=pid, started=started, boot=boot, pid_namespace=namespace)


def is_alive(
    process: Process,
    *,
    seen_from: tuple[str, str] | None = None,
    started: Callable[[int], str | None] | None = None,
) -> bool | None:
    """Return whether a process lives, `None` if that cannot be seen from here.

    A process of the same boot and namespace is told from a later one of the same number by when
    it started, so the answer is exact. Another boot may be another machine of the same name, and
    another namespace another container: nothing is said of these.

    Args:
        process: As it told of itself.
        seen_from: Boot and namespace. Default: those of this process.
        started: Says when the process of a number started, `None` for none. Default: `started_at`.
    """
    if (process.boot, process.pid_namespace) != (seen_from or here()):
        return None
    return (started or started_at)(process.pid) == process.started


def started_at(pid: int) -> str | None:
    """Return when the process of this number started, `None` if there is none, or only a zombie."""
    if not _has_proc():
        return _started_by_psutil(pid)
    try:
        with open(f"{PROC}/{pid}/stat", "rb", buffering=0) as file:
            stat = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    told = stat.rpartition(b") ")[2].split()  # the name before it may hold anything
    # A leader that has ended shows as a zombie while other threads of its process run.
    is_over = told[STATE] in (b"Z", b"X") and int(told[NUM_THREADS]) <= 1
    return None if is_over else told[START_TIME].decode()


@functools.cache
def _has_proc() -> bool:
    return (PROC / "self" / "stat").exists()


def here() -> tuple[str, str]:
    """Return the boot and the namespace of this process.

    They are read anew after a fork, which may have entered another namespace.
    """
    return _read_here(os.getpid())


@functools.lru_cache(maxsize=1)
def _read_here(_: int) -> tuple[str, str]:
    try:
        boot = (PROC / "sys" / "kernel" / "random" / "boot_id").read_text().strip()
        return boot, os.readlink(PROC / "self" / "ns" / "pid")
    except OSError:  # no Linux: the time of creation tells processes of two boots apart
        return f"host:{socket.gethostname()}", ""


def _started_by_psutil(pid: int) -> str | None:
    import psutil

    try:
        process = psutil.Process(pid)
        is_over = process.status() == psutil.STATUS_ZOMBIE
        return None if is_over else repr(process.create_time())
    except psutil.NoSuchProcess:
        return None
