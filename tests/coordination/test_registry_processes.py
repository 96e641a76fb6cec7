"""Sixteen processes that start tasks as fast as they can, some of which are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_elche.coordination.registry.database import Database
from lightning_elche.coordination.registry.registry import Registry
from lightning_elche.coordination.registry.request import Request

ROOT = Path(__file__).parents[2]


def contend(folder: Path, kind: str, *, kills: int, seconds: float) -> dict[str, float]:
    arguments = [str(folder), kind, "16", str(kills), str(seconds)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.coordination.contenders", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60.0 + 2.0 * seconds,
    )
    assert done.returncode == 0, done.stderr
    seen: dict[str, float] = json.loads(done.stdout)
    return seen


@pytest.mark.slow
def test_no_more_run_than_allowed_whoever_is_killed(tmp_path: Path) -> None:
    """Sixteen processes, three leases, four of `kill -9`, and nothing is left over."""
    seen = contend(tmp_path, "registry", kills=4, seconds=1.0)
    assert (seen["too_many"], seen["most"], seen["failed"], seen["left"]) == (0, 3, 0, 0)
    assert seen["killed"] == 4
    assert seen["begun"] > 5


@pytest.mark.slow
def test_referee_sees_what_two_transactions_let_through(tmp_path: Path) -> None:
    """The same processes, but counting and inserting apart."""
    seen = contend(tmp_path, "two", kills=0, seconds=30.0)
    assert seen["too_many"] > 0


def test_slot_of_a_killed_process_is_back_at_once(tmp_path: Path) -> None:
    """The next question gets it, without any waiting."""
    registry = Registry(Database(tmp_path / "registry.db"))
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(tell, b"1" if registry.admit(Request(kind="sweep")).allowed else b"0")
            signal.pause()
        finally:
            os._exit(0)
    assert os.read(told, 1) == b"1"
    assert registry.admit(Request(kind="sweep")).code == "cluster_limit"
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(told), os.close(tell)
    assert registry.why(Request(kind="sweep")).code == "cooldown"
    assert registry.leases() == ()


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_no_more_run_than_allowed_for_long(tmp_path: Path) -> None:
    """As above, with a kill every two seconds; half of those killed hold a lease."""
    minutes = float(os.environ.get("ELCHE_SOAK_MINUTES", "20"))
    seen = contend(tmp_path, "registry", kills=int(30 * minutes), seconds=60.0 * minutes)
    print(seen)
    assert (seen["too_many"], seen["most"], seen["failed"], seen["left"]) == (0, 3, 0, 0)
    assert seen["killed_running"] > 0
