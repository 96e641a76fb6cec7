"""The file that the processes of a host share, and transactions on it."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from lightning_elche.coordination.registry.config import make_folder
from lightning_elche.coordination.registry.forks import ForkLock
from lightning_elche.coordination.registry.migrations import MIGRATIONS
from lightning_elche.coordination.registry.mounts import check_local

__all__ = ["BUSY_EXTENDED_S", "BUSY_QUICK_S", "BUSY_STANDARD_S", "Database"]

# How long to wait while other processes write: in a hook, in a call, at the opening.
BUSY_QUICK_S, BUSY_STANDARD_S, BUSY_EXTENDED_S = 5.0, 10.0, 30.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.0002, 0.004
# Connections of a parent process, kept: one that is closed tidies up files that the parent uses.
_inherited: list[sqlite3.Connection] = []

T = TypeVar("T")


class Database:
    """An SQLite file on a local disk, for any number of processes and threads.

    Writes are one transaction each, begun as writes, so that nothing that one has read is changed
    by another before it ends. They are not lost when a process is killed; when the machine loses
    power, the last ones may be. It survives a fork at any moment: the child has connections of its
    own, and no transaction is open while the process forks.

    Args:
        path: The file; it is made, for this user only, with its folder, where there is none.
        migrations: Statements that bring a file from one version to the next.

    Raises:
        ValueError: If the file would lie on another machine, or its folder is a file.
        RuntimeError: If it was written by a newer version.
        TimeoutError: If others write all the time.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> database = Database(Path(tempfile.mkdtemp()) / "registry.db")
        >>> with database.write() as connection:
        ...     _ = connection.execute("INSERT INTO state VALUES ('halted', '1')")
        >>> database.read("SELECT value FROM state")
        [('1',)]
        >>> database.close()
    """

    def __init__(
        self, path: str | Path, *, migrations: Sequence[Sequence[str]] = MIGRATIONS
    ) -> None:
        self.path = Path(path).absolute()
        check_local(self.path)
        make_folder(self.path.parent)
        # SQLite gives the files beside it the same mode.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._connections: dict[tuple[int, int], sqlite3.Connection] = {}
        self._lock = ForkLock(self._forget_parent)  # held while a transaction is open
        weakref.finalize(self, _close_all, self._connections)
        self._migrate(migrations)

    @contextlib.contextmanager
    def write(self, *, busy_s: float = BUSY_STANDARD_S) -> Iterator[sqlite3.Connection]:
        """Open a transaction that writes; it is undone if the block raises.

        Args:
            busy_s: How long to wait for other processes.

        Raises:
            TimeoutError: If they do not let it through.
        """
        with self._transaction(busy_s) as connection:
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    @contextlib.contextmanager
    def rehearse(self, *, busy_s: float = BUSY_STANDARD_S) -> Iterator[sqlite3.Connection]:
        """Open a transaction as `write` does, and undo it in any case."""
        with self._transaction(busy_s) as connection:
            try:
                yield connection
            finally:
                connection.execute("ROLLBACK")

    def read(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Return what is in the file now; does not wait for writes.

        Raises:
            TimeoutError: If the file is closed to all for a long time, as in a repair.
        """
        connection = self._connection()
        return self._retried(
            lambda: connection.execute(statement, values).fetchall(), BUSY_STANDARD_S
        )

    def close(self) -> None:
        """Close the connections of this process; they are opened again when they are needed."""
        with self._lock:
            for key in [key for key in self._connections if key[0] == os.getpid()]:
                self._connections.pop(key).close()

    def __repr__(self) -> str:
        return f"Database({str(self.path)!r})"

    @contextlib.contextmanager
    def _transaction(self, busy_s: float) -> Iterator[sqlite3.Connection]:
        connection = self._connection()
        self._retried(lambda: self._begin(connection), busy_s)
        try:
            yield connection
        finally:
            self._lock.release()

    def _begin(self, connection: sqlite3.Connection) -> None:
        """Begin a write, and hold the lock then; never between two tries, so that a fork can."""
        if not self._lock.acquire(timeout_s=LONGEST_PAUSE_S):
            raise sqlite3.OperationalError("locked by another thread")
        try:
            connection.execute("BEGIN IMMEDIATE")
        except BaseException:
            self._lock.release()
            raise

    def _retried(self, call: Callable[[], T], busy_s: float) -> T:
        """Call until the file is not locked.

        SQLite's own waiting grows to steps of 100 ms, in which others overtake.
        """
        deadline_s = time.monotonic() + busy_s
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return call()
            except sqlite3.OperationalError as err:
                if "locked" not in str(err):
                    raise
                if time.monotonic() >= deadline_s:
                    raise TimeoutError(
                        f"{self.path} was locked by others for {busy_s:g} seconds. One of them "
                        "may be stopped in the middle of a write; `fuser` names those that have "
                        "the file open."
                    ) from err
            time.sleep(random.uniform(0.5 * pause_s, pause_s))
            pause_s = min(LONGEST_PAUSE_S, 2.0 * pause_s)

    def _connection(self) -> sqlite3.Connection:
        """Return the connection of this thread of this process."""
        key = (os.getpid(), threading.get_ident())
        connection = self._connections.get(key)
        if connection is None:
            connection = self._connections[key] = self._retried(self._connect, BUSY_EXTENDED_S)
        return connection

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=0.0, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
        except BaseException:
            connection.close()
            raise
        return connection

    def _migrate(self, migrations: Sequence[Sequence[str]]) -> None:
        if self._version() == len(migrations):
            return
        with self.write(busy_s=BUSY_EXTENDED_S) as connection:
            version = self._version()  # another process may have been faster
            if version > len(migrations):
                raise RuntimeError(
                    f"{self.path} has version {version} of the registry, this package knows "
                    f"{len(migrations)} at most. Update lightning-elche, or set `ELCHE_COORD_DIR` "
                    "to another folder."
                )
            for statements in migrations[version:]:
                for statement in statements:
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {len(migrations)}")

    def _version(self) -> int:
        (row,) = self.read("PRAGMA user_version")
        return int(row[0])

    def _forget_parent(self) -> None:
        _inherited.extend(self._connections.values())
        self._connections.clear()


def _close_all(connections: dict[tuple[int, int], sqlite3.Connection]) -> None:
    for connection in connections.values():
        connection.close()
