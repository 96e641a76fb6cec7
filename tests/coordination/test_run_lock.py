"""Tests of the lock on the folder of a run, between real processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lightning_elche.coordination.run_lock import RunLock

HOLD = """
import os, sys
from pathlib import Path
from lightning_elche.coordination.run_lock import RunLock
lock = RunLock(Path(sys.argv[1]))
lock.take()
child = os.fork() if sys.argv[2] == "fork" else None
if child == 0:
    sys.stdin.read()  # like a DataLoader worker, until the other end is closed
    os._exit(0)
print(child, flush=True)
sys.stdin.read()
"""


@contextmanager
def holder(folder: Path, mode: str = "alone") -> Iterator[subprocess.Popen[str]]:
    """Start a process that has the lock, and end it."""
    command = [sys.executable, "-c", HOLD, str(folder), mode]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout.readline()
        yield process
        process.kill()
        process.stdin.close()


def test_second_run_is_refused_and_told_by_whom(tmp_path: Path) -> None:
    """The first one is not disturbed."""
    with holder(tmp_path) as process:
        for _ in range(2):
            with pytest.raises(RuntimeError, match="Another run writes to") as caught:
                RunLock(tmp_path).take()
            assert f"process {process.pid} on {socket.gethostname()}" in str(caught.value)


def test_lock_of_a_killed_run_is_free(tmp_path: Path) -> None:
    """What it has left behind is in nobody's way."""
    with holder(tmp_path) as process:
        process.kill()
        process.wait(10.0)
        lock = RunLock(tmp_path)
        lock.take()
    lock.release()
    assert list(tmp_path.iterdir()) == []


def test_children_of_a_killed_run_are_waited_for(tmp_path: Path) -> None:
    """A forked child keeps the lock until it notices that its parent is gone."""
    with holder(tmp_path, "fork") as process:
        process.kill()
        process.wait(10.0)
        process.stdin.close()  # type: ignore[union-attr]
        RunLock(tmp_path).take()


def test_lock_can_be_taken_again_after_it_was_given_back(tmp_path: Path) -> None:
    """By a later fit of the same process, in a folder that may be new."""
    folder = tmp_path / "new" / "elche"
    for _ in range(2):
        lock = RunLock(folder)
        lock.take()
        assert json.loads((folder / "owner.json").read_text())["pid"] == os.getpid()
        lock.release()
        lock.release()
    assert list(folder.iterdir()) == []


def test_run_that_was_refused_removes_nothing(tmp_path: Path) -> None:
    """The lock of the other one still holds."""
    first, second = RunLock(tmp_path), RunLock(tmp_path)
    first.take()
    with pytest.raises(RuntimeError, match="Another run"):
        second.take()
    second.release()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["owner.json", "run.lock"]
    first.release()
