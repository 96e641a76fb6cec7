"""Tests of the example that waits for its turn."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import one_at_a_time
import pytest

from lightning_elche.coordination.registry.database import Database
from lightning_elche.coordination.registry.registry import Registry
from lightning_elche.coordination.registry.request import Request
from tests.coordination.calls import eventually


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(Database(tmp_path / "registry.db"))


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the example in this process, where what is told is left as it is."""
    monkeypatch.setattr(sys, "argv", ["one_at_a_time.py", "--folder", str(folder), *arguments])
    monkeypatch.setattr(one_at_a_time, "quiet_lightning", lambda: None)
    return one_at_a_time.main()


def test_the_second_says_why_it_does_not_start(
    registry: Registry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And ends with 1."""
    assert registry.admit(Request(kind="train")).allowed
    assert run(tmp_path, monkeypatch) == 1
    assert capsys.readouterr().out.startswith("not started: host_limit: 1 of kind train on ")


def test_the_second_trains_when_the_first_has_ended(
    registry: Registry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It has stood in the queue until then, and leaves nothing behind."""
    lease = registry.admit(Request(kind="train")).lease
    assert lease is not None

    def leave_when_somebody_waits() -> None:
        if eventually(lambda: bool(registry.state()["queues"]), timeout_s=60.0):
            registry.release(lease.id, succeeded=True)

    thread = threading.Thread(target=leave_when_somebody_waits)
    thread.start()
    assert run(tmp_path, monkeypatch, "--wait", "90", "--epochs", "1") == 0
    thread.join(60.0)
    assert "\ndone, accuracy " in capsys.readouterr().out
    assert registry.leases() == ()
