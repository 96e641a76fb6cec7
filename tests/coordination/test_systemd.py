"""Tests of what systemd is told, by a socket like its own."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightning_elche.coordination.systemd import SystemdNotifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[socket.socket]:
    """Return the socket of a service manager, a file or in the abstract namespace."""
    name = str(tmp_path / "notify") if request.param == "path" else f"\0{tmp_path}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as own:
        own.bind(name)
        own.settimeout(5.0)
        yield own


def address(manager: socket.socket) -> str:
    """Return the value of `NOTIFY_SOCKET`."""
    name = manager.getsockname()
    return name if isinstance(name, str) else f"@{name[1:].decode()}"


def test_manager_is_told_of_begin_life_and_end(manager: socket.socket) -> None:
    """In the words of sd_notify; of the end once."""
    environment = {"NOTIFY_SOCKET": address(manager), "WATCHDOG_USEC": "3000000"}
    notifier = SystemdNotifier(environment)
    notifier.ready()
    notifier.alive()
    notifier.stopping()
    notifier.stopping()
    notifier.alive()
    told = [manager.recv(100) for _ in range(4)]
    assert told == [b"READY=1", b"WATCHDOG=1", b"STOPPING=1", b"WATCHDOG=1"]


def test_watchdog_is_fed_only_where_there_is_one(manager: socket.socket) -> None:
    """Not one that watches another process."""
    environment = {"NOTIFY_SOCKET": address(manager), "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}
    notifier = SystemdNotifier(environment, pid=2)
    notifier.alive()
    notifier.stopping()
    assert manager.recv(100) == b"STOPPING=1"
    assert notifier.watchdog_s is None


@pytest.mark.parametrize(
    ("limit", "watchdog_s"), [("30000000", 30.0), ("", None), ("soon", None), ("-1", None)]
)
def test_limit_is_read(limit: str, watchdog_s: float | None) -> None:
    """In microseconds."""
    notifier = SystemdNotifier({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": limit})
    assert notifier.watchdog_s == watchdog_s


def test_without_a_manager_nothing_is_said() -> None:
    """And nothing fails."""
    notifier = SystemdNotifier({"WATCHDOG_USEC": "1000000"})
    for tell in (notifier.ready, notifier.alive, notifier.stopping):
        tell()
    assert (notifier.is_active, notifier.watchdog_s) == (False, None)


def test_manager_that_is_gone_does_not_end_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told once."""
    notifier = SystemdNotifier({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    notifier.ready()
    notifier.stopping()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
