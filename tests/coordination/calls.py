"""What the tests call in other processes; imports nothing heavy."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

__all__ = ["Gate", "eventually", "is_alive", "worker_threads"]


class Gate:
    """A call that waits until it is let go, and tells that it has begun."""

    def __init__(self) -> None:
        self.begun, self.opened = threading.Event(), threading.Event()

    def __call__(self, *args: object) -> object:
        self.begun.set()
        assert self.opened.wait(20.0)
        return args[-1] if args else None


class Untravelled(Exception):
    """Cannot be made anew from its arguments."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


def eventually(condition: Callable[[], bool], timeout_s: float = 10.0) -> bool:
    """Return whether `condition` comes true in time."""
    never, rounds = threading.Event(), int(timeout_s / 0.001)
    return any(condition() or never.wait(0.001) for _ in range(rounds))


def worker_threads() -> list[threading.Thread]:
    """Return the threads of all workers of this process."""
    return [thread for thread in threading.enumerate() if thread.name == "elche-worker"]


def is_alive(pid: int) -> bool:
    """Return whether a process runs, and is not only waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


def size_of(data: bytes) -> bytes:
    return data + len(data).to_bytes(4, "big")


def heavy_modules() -> list[str]:
    return sorted({"torch", "lightning", "numpy", "pytest"} & set(sys.modules))


def fail(first: int, second: int) -> None:
    raise Untravelled(first, second)


def give_lock() -> object:
    return threading.Lock()


def never_return(file: str, is_stubborn: bool = False) -> None:
    """Write the ids of this process and of one that it starts, and wait for ever."""
    if is_stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    other = subprocess.Popen(["sleep", "600"])
    write_whole(file, f"{os.getpid()} {other.pid}")
    threading.Event().wait()


def write_whole(file: str, text: str) -> None:
    Path(f"{file}.tmp").write_text(text)
    Path(f"{file}.tmp").replace(file)
