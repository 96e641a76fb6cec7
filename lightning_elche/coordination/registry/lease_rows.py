"""Leases and tickets in the registry's file, and which of them are held by nobody any more."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass
from typing import Any

from lightning_elche.coordination.registry.breaker_rows import BreakerRows, breaker_keys
from lightning_elche.coordination.registry.liveness import Process, is_alive
from lightning_elche.coordination.registry.request import Lease, Request

__all__ = ["BEAT_S", "EXPIRY_S", "LeaseRows", "TicketRows"]

BEAT_S, EXPIRY_S = 30.0, 90.0
KEPT_S = 60 * 86400.0  # how long it is kept what a task took
COLUMNS = (
    "id, kind, host, run, pid, started, boot, pid_namespace, gpus, vram_bytes, ram_bytes, weight, "
    "reservation, since_s, beat_s, has_progressed, requested"
)
IsAlive = Callable[[Process], "bool | None"]


@dataclass(frozen=True, kw_only=True)
class LeaseRows:
    """The leases, in an open transaction.

    Attributes:
        connection: Of the transaction.
        now_s: The time of the registry.
        breakers: Told how each start ended.
        is_alive: Whether a process lives, `None` if it cannot be seen from here.
    """

    connection: sqlite3.Connection
    now_s: float
    breakers: BreakerRows
    is_alive: IsAlive = is_alive

    def add(self, request: Request) -> Lease:
        """Give a lease."""
        process = request.process
        lease = Lease(
            id=request.id,
            kind=request.kind,
            host=request.host,
            process=process,
            run=request.run,
            gpus=request.gpus,
            vram_bytes=request.vram_bytes,
            ram_bytes=request.ram_bytes,
            weight=request.weight,
            reservation=request.reservation,
            since_s=self.now_s,
            beat_s=self.now_s,
        )
        told: tuple[object, ...] = (
            *(lease.id, lease.kind, lease.host, lease.run, *astuple(process)),
            *(lease.gpus, lease.vram_bytes, lease.ram_bytes, lease.weight, lease.reservation),
            *(lease.since_s, lease.beat_s, False, None),
        )
        marks = ", ".join("?" * len(told))
        self.connection.execute(f"INSERT INTO lease ({COLUMNS}) VALUES ({marks})", told)
        return lease

    def get(self, lease_id: str) -> Lease | None:
        """Return a lease, `None` if it is not held."""
        row = self.connection.execute(
            f"SELECT {COLUMNS} FROM lease WHERE id = ?", (lease_id,)
        ).fetchone()
        return None if row is None else _lease_of(row)

    def all(self) -> list[Lease]:
        """Return all of them, the oldest first."""
        rows = self.connection.execute(f"SELECT {COLUMNS} FROM lease ORDER BY since_s, id")
        return [_lease_of(row) for row in rows]

    def reclaim(self) -> None:
        """Take back the leases of processes that have ended: their tasks have failed."""
        rows = self.connection.execute(
            "SELECT id, beat_s, pid, started, boot, pid_namespace FROM lease"
        ).fetchall()
        for lease_id, beat_s, *process in rows:
            if self._is_dead(_process_of(process), beat_s):
                lease = self.get(lease_id)
                assert lease is not None
                self.end(lease, succeeded=False)

    def _is_dead(self, process: Process, beat_s: float) -> bool:
        """Return whether nobody holds a lease any more.

        Where the process can be seen, that is exact, and it may be silent for ever.
        """
        found = self.is_alive(process)
        return self.now_s - beat_s > EXPIRY_S if found is None else not found

    def progress(self, lease: Lease) -> None:
        """Take in that a start has succeeded; the first time counts."""
        if not lease.has_progressed:
            self.connection.execute("UPDATE lease SET has_progressed = 1 WHERE id = ?", (lease.id,))
            self.breakers.end(_keys_of(lease), lease.id, succeeded=True)

    def end(self, lease: Lease, *, succeeded: bool | None) -> None:
        """Take a lease back, and keep how long its task took and what it used."""
        is_told = succeeded is True and lease.has_progressed
        self.breakers.end(_keys_of(lease), lease.id, succeeded=None if is_told else succeeded)
        self.connection.execute(
            "INSERT INTO duration SELECT ?, kind, run, host, ? - since_s, ?, vram_peak_bytes, "
            "ram_peak_bytes, cores_used FROM lease WHERE id = ?",
            (self.now_s, self.now_s, succeeded, lease.id),
        )
        self.connection.execute("DELETE FROM lease WHERE id = ?", (lease.id,))
        self.connection.execute(
            "DELETE FROM duration WHERE kind = ? AND at_s < ?", (lease.kind, self.now_s - KEPT_S)
        )


@dataclass(frozen=True, kw_only=True)
class TicketRows:
    """The places in the queues, in an open transaction.

    Attributes:
        connection: Of the transaction.
        now_s: The time of the registry.
        is_alive: Whether a process lives, `None` if it cannot be seen from here.
    """

    connection: sqlite3.Connection
    now_s: float
    is_alive: IsAlive = is_alive

    def reclaim(self) -> None:
        """Drop the places of those that have ended, or have not asked for a long time."""
        rows = self.connection.execute(
            "SELECT id, beat_s, pid, started, boot, pid_namespace FROM ticket"
        ).fetchall()
        for ticket, beat_s, *process in rows:
            if self.now_s - beat_s > EXPIRY_S or self.is_alive(_process_of(process)) is False:
                self.drop(ticket)

    def ahead(self, request: Request) -> int:
        """Return how many of its kind stand before a request; without a ticket, all do."""
        (count,) = self.connection.execute(
            "SELECT COUNT(*) FROM ticket WHERE kind = ? AND position < "
            "COALESCE((SELECT position FROM ticket WHERE id = ?), 9e18)",
            (request.kind, request.ticket),
        ).fetchone()
        return int(count)

    def keep(self, request: Request, new_id: str) -> str:
        """Return the place of a request: the one that it has, or the last."""
        kept = self.connection.execute(
            "UPDATE ticket SET beat_s = ? WHERE id = ?", (self.now_s, request.ticket)
        )
        if request.ticket is not None and kept.rowcount:
            return request.ticket
        self.connection.execute(
            "INSERT INTO ticket (id, kind, host, pid, started, boot, pid_namespace, since_s, "
            "beat_s) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(new_id, request.kind, request.host, *astuple(request.process)),
                *(self.now_s, self.now_s),
            ),
        )
        return new_id

    def drop(self, ticket: str | None) -> None:
        """Give up a place, if it is one."""
        if ticket is not None:
            self.connection.execute("DELETE FROM ticket WHERE id = ?", (ticket,))


def _keys_of(lease: Lease) -> tuple[str, ...]:
    return breaker_keys(lease.host, lease.kind, lease.run)


def _process_of(row: Iterable[Any]) -> Process:
    pid, started, boot, namespace = row
    return Process(pid=pid, started=started, boot=boot, pid_namespace=namespace)


def _lease_of(row: tuple[Any, ...]) -> Lease:
    return Lease(
        id=row[0],
        kind=row[1],
        host=row[2],
        run=row[3],
        process=_process_of(row[4:8]),
        gpus=row[8],
        vram_bytes=row[9],
        ram_bytes=row[10],
        weight=row[11],
        reservation=row[12],
        since_s=row[13],
        beat_s=row[14],
        has_progressed=bool(row[15]),
        requested=row[16],
    )
