"""A transfer under way, and the book of all that share a link."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING, Protocol

from lightning_elche.coordination.bandwidth.rate import RateLimit
from lightning_elche.coordination.registry.clock import read_clock, registry_now_s

if TYPE_CHECKING:
    import sqlite3

    from lightning_elche.coordination.registry.database import Database

__all__ = ["Decide", "Grant", "MemoryBook", "SharedBook", "Transfer", "TransferBook"]

BYTES_PER_MBIT = 125_000.0


@dataclass(frozen=True, kw_only=True)
class Grant:
    """A part of a link that a transfer may use.

    Attributes:
        id: Names it.
        host: The other end.
        priority: Of the transfer.
        mbps: Mbit/s.
        num_bytes: What it wants to transfer.
        since_s: When it began, on the clock of the book.
        until_s: When it no longer counts.
    """

    id: str
    host: str
    priority: str
    mbps: float
    num_bytes: int
    since_s: float
    until_s: float


Decide = Callable[[Sequence[Grant], float], "Grant | str"]


class TransferBook(Protocol):
    """All grants that count at present."""

    def enter(self, decide: Decide) -> Grant | str:
        """Add what `decide` makes of the grants and the time, unless that is a refusal.

        Nobody else changes the book meanwhile.
        """
        ...

    def prolong(self, grant_id: str, lease_s: float) -> None:
        """Let a grant count for so long from now on, if it still does."""
        ...

    def leave(self, grant_id: str) -> bool:
        """Remove a grant, and return whether it was there."""
        ...

    def grants(self) -> list[Grant]:
        """Return the grants that count now."""
        ...


class MemoryBook:
    """The transfers of this process.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._grants: dict[str, Grant] = {}

    def enter(self, decide: Decide) -> Grant | str:
        """Add what `decide` makes of the grants and the time, unless that is a refusal."""
        with self._lock:
            answer = decide(self._live(), self._clock())
            if isinstance(answer, Grant):
                self._grants[answer.id] = answer
            return answer

    def prolong(self, grant_id: str, lease_s: float) -> None:
        """Let a grant count for so long from now on, if it still does."""
        with self._lock:
            self._live()
            if grant_id in self._grants:
                until_s = self._clock() + lease_s
                self._grants[grant_id] = replace(self._grants[grant_id], until_s=until_s)

    def leave(self, grant_id: str) -> bool:
        """Remove a grant, and return whether it was there."""
        with self._lock:
            return self._grants.pop(grant_id, None) is not None

    def grants(self) -> list[Grant]:
        """Return the grants that count now."""
        with self._lock:
            return self._live()

    def _live(self) -> list[Grant]:
        now_s = self._clock()
        self._grants = {name: one for name, one in self._grants.items() if one.until_s > now_s}
        return list(self._grants.values())


class SharedBook:
    """The transfers of all processes of this machine.

    Args:
        database: Of the registry.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def enter(self, decide: Decide) -> Grant | str:
        """Add what `decide` makes of the grants and the time, unless that is a refusal."""
        with self._database.write() as connection:
            grants, now_s = _live(connection)
            answer = decide(grants, now_s)
            if isinstance(answer, Grant):
                connection.execute(
                    "INSERT INTO transfer (id, host, priority, mbps, num_bytes, since_s, until_s) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?)",
                    astuple(answer),
                )
            return answer

    def prolong(self, grant_id: str, lease_s: float) -> None:
        """Let a grant count for so long from now on, if it still does."""
        with self._database.write() as connection:
            _, now_s = _live(connection)
            connection.execute(
                "UPDATE transfer SET until_s = ? WHERE id = ?", (now_s + lease_s, grant_id)
            )

    def leave(self, grant_id: str) -> bool:
        """Remove a grant, and return whether it was there."""
        with self._database.write() as connection:
            done = connection.execute("DELETE FROM transfer WHERE id = ?", (grant_id,))
            return done.rowcount > 0

    def grants(self) -> list[Grant]:
        """Return the grants that count now."""
        with self._database.write() as connection:
            return _live(connection)[0]


class Transfer:
    """A transfer under way, which keeps to what it was granted.

    Args:
        grant: What it may use.
        book: Where it stands.
        lease_s: For how long it counts without a sign of life.
        clock: Seconds that only grow.
        sleep: Waits for so many seconds.

    Attributes:
        grant: What it may use.
        sent_bytes: What it has transferred.
    """

    def __init__(
        self,
        grant: Grant,
        book: TransferBook,
        *,
        lease_s: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.grant, self._book = grant, book
        self.sent_bytes = 0
        self._lease_s, self._clock = lease_s, clock
        self._prolonged_s = clock()
        self._limit = RateLimit(grant.mbps * BYTES_PER_MBIT, clock=clock, sleep=sleep)

    @property
    def block_bytes(self) -> int:
        """A size of blocks that passes evenly."""
        return self._limit.block_bytes

    def throttle(self, num_bytes: int) -> None:
        """Wait until so many bytes more may be sent."""
        now_s = self._clock()
        if now_s - self._prolonged_s > 0.5 * self._lease_s:
            self._prolonged_s = now_s
            self._book.prolong(self.grant.id, self._lease_s)
        self._limit.take(num_bytes)
        self.sent_bytes += num_bytes


def _live(connection: sqlite3.Connection) -> tuple[list[Grant], float]:
    """Return the grants that count, and the time; forget the others."""
    now_s = registry_now_s(connection, read_clock())
    connection.execute("DELETE FROM transfer WHERE until_s <= ?", (now_s,))
    names = "id, host, priority, mbps, num_bytes, since_s, until_s"
    rows = connection.execute(f"SELECT {names} FROM transfer").fetchall()
    return [Grant(**dict(zip(names.split(", "), row, strict=True))) for row in rows], now_s
