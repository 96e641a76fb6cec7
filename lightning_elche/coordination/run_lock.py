"""Keeps a second run from writing into the folder of one that is under way."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from lightning_elche.contracts.runfolder.jsonfile import read_object
from lightning_elche.coordination.atomic_file import replace_file

__all__ = ["LOCK_NAME", "RunLock"]

LOCK_NAME, OWNER_NAME = "run.lock", "owner.json"
# DataLoader workers that were forked hold the lock until they notice that their parent is gone.
ORPHANS_S = 5.0
POLL_S = 0.05


class RunLock:
    """A lock on the folder of a run, which ends with the process that holds it.

    Args:
        folder: Of the run; it is made if it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = FileLock(folder / LOCK_NAME, timeout=0, thread_local=False)

    def take(self) -> None:
        """Take the lock.

        Raises:
            RuntimeError: If another run has it; the message names its process.
            OSError: If the folder cannot be written to.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(
                timeout=ORPHANS_S if self._is_orphaned() else 0, poll_interval=POLL_S
            )
        except Timeout as err:
            raise RuntimeError(
                f"Another run writes to {self._folder}: {self._owner()}. Wait for its end, or give "
                "this one another `default_root_dir` or logger version."
            ) from err
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "started_at": time.time()}
        replace_file(self._folder / OWNER_NAME, json.dumps(owner).encode())

    def release(self) -> None:
        """Give the lock back, and remove what told of it; does nothing without it."""
        if self._lock.is_locked:
            (self._folder / OWNER_NAME).unlink(missing_ok=True)
            # Before it is given back: whoever finds the file locks it, and then nobody removes it.
            (self._folder / LOCK_NAME).unlink(missing_ok=True)
            self._lock.release()

    def _is_orphaned(self, exists: Callable[[int], bool] = psutil.pid_exists) -> bool:
        """Return whether who took the lock was a process of this machine that is gone."""
        owner = _read(self._folder / OWNER_NAME)
        pid, host = owner.get("pid"), owner.get("host")
        return isinstance(pid, int) and host == socket.gethostname() and not exists(pid)

    def _owner(self) -> str:
        owner = _read(self._folder / OWNER_NAME)
        if not owner:
            return "a process that has not said which"
        return f"process {owner.get('pid')} on {owner.get('host')}"


def _read(path: Path) -> dict[str, object]:
    try:
        return read_object(path)
    except (OSError, ValueError):
        return {}
