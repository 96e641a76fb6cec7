"""Which processes live, told of real ones."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lightning_elche.coordination.registry import liveness
from lightning_elche.coordination.registry.liveness import (
    is_alive,
    own_process,
    process_at,
    started_at,
)
from tests.coordination.calls import eventually

LEADER_ENDS = """
import ctypes, threading
threading.Thread(target=threading.Event().wait, args=(60,)).start()
print("up", flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""


def test_this_process_lives() -> None:
    """Beyond doubt."""
    assert is_alive(own_process()) is True


def test_later_process_of_the_same_number_is_another() -> None:
    """It started at another time."""
    own = own_process()
    assert is_alive(replace(own, started=str(int(own.started) - 1))) is False


@pytest.mark.parametrize("field", ["boot", "pid_namespace"])
def test_nothing_is_said_of_what_cannot_be_seen(field: str) -> None:
    """Another boot, or another container, whatever runs here under that number."""
    assert is_alive(replace(own_process(), **{field: "another"})) is None


def test_zombie_has_ended() -> None:
    """Though nobody has waited for it."""
    child = subprocess.Popen(["sleep", "60"])
    process = process_at(child.pid)
    assert is_alive(process) is True
    os.kill(child.pid, 9)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    try:
        assert Path(f"/proc/{child.pid}/stat").exists()
        assert is_alive(process) is False
    finally:
        child.wait()
    assert is_alive(process) is False


def test_process_whose_first_thread_has_ended_lives() -> None:
    """It shows as a zombie, while its other threads run."""
    child = subprocess.Popen([sys.executable, "-c", LEADER_ENDS], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        stat = Path(f"/proc/{child.pid}/stat")
        assert eventually(lambda: ") Z " in stat.read_text())
        assert is_alive(process_at(child.pid)) is True
    finally:
        child.kill()
        child.communicate()


def test_number_of_no_process_is_an_error() -> None:
    """And has no time at which it started."""
    with pytest.raises(ProcessLookupError, match="no process 4194304"):
        process_at(4194304)
    assert started_at(4194304) is None


def test_name_may_hold_anything(tmp_path: Path) -> None:
    """Brackets and blanks in it do not shift what comes behind it."""
    program = tmp_path / "a) Z 1 (b"
    program.symlink_to("/bin/sleep")
    child = subprocess.Popen([str(program), "60"])
    try:
        assert eventually(lambda: b") Z 1" in Path(f"/proc/{child.pid}/stat").read_bytes())
        assert is_alive(process_at(child.pid)) is True
    finally:
        child.kill()
        child.wait()


def test_psutil_tells_where_there_is_no_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, by the time of creation."""
    monkeypatch.setattr(liveness, "_has_proc", lambda: False)
    child = subprocess.Popen(["sleep", "60"])
    process = process_at(child.pid)
    assert is_alive(process) is True
    assert is_alive(replace(process, started="1.0")) is False
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert is_alive(process) is False
    child.wait()
    assert is_alive(process) is False
