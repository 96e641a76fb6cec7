"""One file for all processes of a host."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from lightning_elche.coordination.registry import database as module
from lightning_elche.coordination.registry import mounts
from lightning_elche.coordination.registry.database import Database
from lightning_elche.coordination.registry.migrations import MIGRATIONS
from lightning_elche.coordination.registry.mounts import check_local, file_system_of, read_mounts

INSERT = "INSERT INTO state VALUES (?, '1')"
COUNT = "SELECT COUNT(*) FROM state"


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(tmp_path / "folder" / "registry.db")


def in_child(call: Callable[[], object]) -> int:
    """Make a call in a forked process that then ends as Python does, and return its code."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            call()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_only_this_user_may_look(database: Database) -> None:
    """Into the folder and all files in it."""
    with database.write() as connection:
        connection.execute(INSERT, ("a",))
    folder = database.path.parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {
        "registry.db": 0o600,
        "registry.db-wal": 0o600,
        "registry.db-shm": 0o600,
    }


def test_file_is_set_up_for_many_writers(database: Database) -> None:
    """Write-ahead log, and no sync for each write."""
    assert database.read("PRAGMA journal_mode") == [("wal",)]
    assert database.read("PRAGMA synchronous") == [(1,)]


def test_write_that_raises_leaves_nothing(database: Database) -> None:
    """Nor does a rehearsal."""
    with pytest.raises(sqlite3.IntegrityError), database.write() as connection:
        connection.executemany(INSERT, [("a",), ("a",)])
    with database.rehearse() as connection:
        connection.execute(INSERT, ("b",))
    assert database.read(COUNT) == [(0,)]


def test_threads_take_turns(database: Database) -> None:
    """What each has read is not changed under it."""

    def add_one(_: int = 0) -> None:
        for _ in range(25):
            with database.write() as connection:
                ((count,),) = connection.execute(COUNT).fetchall()
                connection.execute(INSERT, (str(count),))

    threads = [threading.Thread(target=add_one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20.0)
    assert database.read(COUNT) == [(100,)]


def test_waiting_for_others_has_an_end(database: Database) -> None:
    """And says what to look for."""
    with closing(sqlite3.connect(database.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with (
            pytest.raises(TimeoutError, match=r"locked by others for 0.05 seconds"),
            database.write(busy_s=0.05),
        ):
            pass
        assert database.read(COUNT) == [(0,)]


def test_forked_child_has_its_own_connection(database: Database) -> None:
    """Both write, and what the child leaves behind harms nobody."""

    def write() -> None:
        with database.write() as connection:
            connection.execute(INSERT, (str(os.getpid()),))

    write()
    assert in_child(write) == 0
    with closing(sqlite3.connect(database.path)) as connection:
        assert connection.execute(COUNT).fetchone() == (2,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_fork_waits_for_an_open_transaction(database: Database) -> None:
    """The child can neither commit nor undo it, also where it closes everything."""
    is_open, never = threading.Event(), threading.Event()

    def write() -> None:
        with database.write() as connection:
            connection.execute(INSERT, ("a",))
            is_open.set()
            never.wait(0.2)  # nothing can wake it while the fork waits
            connection.execute(INSERT, ("b",))

    def look() -> None:
        assert not any(c.in_transaction for c in module._inherited)
        assert database.read(COUNT) == [(2,)]
        for connection in module._inherited:
            connection.close()
        database.close()

    thread = threading.Thread(target=write)
    thread.start()
    assert is_open.wait(20.0)
    assert in_child(look) == 0
    thread.join(20.0)
    assert database.read(COUNT) == [(2,)]
    assert database.read("PRAGMA integrity_check") == [("ok",)]


def test_killed_writer_leaves_nothing_and_no_lock(database: Database) -> None:
    """Though it was in the middle of it."""

    def die() -> None:
        with database.write() as connection:
            connection.execute(INSERT, ("a",))
            os.kill(os.getpid(), 9)

    assert in_child(die) == -9
    with database.write(busy_s=1.0) as connection:
        assert connection.execute(COUNT).fetchone() == (0,)


def test_older_file_becomes_one_of_today(tmp_path: Path) -> None:
    """What is in it stays."""
    path = tmp_path / "registry.db"
    with Database(path).write() as connection:
        connection.execute(INSERT, ("a",))
    later = (*MIGRATIONS, ("ALTER TABLE state ADD COLUMN more TEXT",))
    newer = Database(path, migrations=later)
    assert newer.read("SELECT * FROM state") == [("a", "1", None)]
    assert newer.read("PRAGMA user_version") == [(2,)]


def test_newer_file_is_refused(tmp_path: Path) -> None:
    """And stays as it is."""
    path = tmp_path / "registry.db"
    Database(path, migrations=(*MIGRATIONS, ()))
    with pytest.raises(RuntimeError, match=r"has version 2 of the registry.* knows 1 at most"):
        Database(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)


MOUNTS = [("/", "ext4"), ("/home", "nfs4"), ("/home/local", "xfs"), ("/mnt/a b", "cifs")]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/x", "ext4"),
        ("/home/ann/x", "nfs4"),
        ("/home/local/x", "xfs"),
        ("/homework/x", "ext4"),
        ("/mnt/a b/x", "cifs"),
    ],
)
def test_file_system_is_that_of_the_nearest_mount(path: str, kind: str) -> None:
    """Not of one whose name only begins alike."""
    assert file_system_of(Path(path), MOUNTS) == kind


def test_last_mount_of_a_place_hides_the_others() -> None:
    """As when a disk is mounted over an automounter."""
    assert file_system_of(Path("/home/x"), [*MOUNTS, ("/home", "btrfs")]) == "btrfs"


def test_file_on_another_machine_is_refused() -> None:
    """With both ways out."""
    with pytest.raises(ValueError, match=r"`path` must lie on .* got /home/x on nfs4.*coord serve"):
        check_local(Path("/home/x"), MOUNTS)


def test_mounts_of_this_machine_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where there is no /proc."""
    assert ("/proc", "proc") in read_mounts()
    monkeypatch.setattr(mounts, "Path", lambda _: Path("/nowhere"))
    assert any(place == "/" for place, _ in read_mounts())
