"""Says which tasks may start, for all processes of a host, or of several."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from lightning_elche.coordination.breaker import BreakerConfig
from lightning_elche.coordination.registry.admit import RULES, Desk
from lightning_elche.coordination.registry.admit_rate import note_start, num_starts
from lightning_elche.coordination.registry.breaker_rows import BreakerRows, breaker_keys
from lightning_elche.coordination.registry.clock import ClockReading, read_clock, registry_now_s
from lightning_elche.coordination.registry.database import BUSY_QUICK_S, BUSY_STANDARD_S, Database
from lightning_elche.coordination.registry.edits import Edits, user_name
from lightning_elche.coordination.registry.host_rows import grant_of, note_machine, note_use
from lightning_elche.coordination.registry.lease_rows import LeaseRows, TicketRows
from lightning_elche.coordination.registry.limits import LimitsConfig, start_delay_s
from lightning_elche.coordination.registry.liveness import Process, is_alive
from lightning_elche.coordination.registry.request import (
    FINAL,
    Beat,
    Decision,
    Lease,
    Request,
)
from lightning_elche.coordination.registry.state import count_answer, state_of

__all__ = ["Registry"]


class Registry:
    """Gives leases to tasks that may run; each question is one transaction.

    All processes with the same file share it. A lease is free again when its process has ended,
    however that happened. Its clock is not moved by changes of the wall clock.

    Args:
        database: The file.
        limits: How many tasks there may be, and how fast they may start.
        breaker: When starts that keep failing are refused.
        clock: Reads the clocks of the host.
        is_alive: Whether a process lives, `None` if it cannot be seen from here.
        draw: Random numbers in [0, 1), for the jitter of breakers.
        peak: Returns the seconds until peak hours are over, from a time of the wall clock and how
            long a task takes; 0 if it would not run in any.
        target_ratio: The part of a host's time that its tasks may have together.
        busy_s: How long to wait for other processes that write.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> registry = Registry(Database(Path(tempfile.mkdtemp()) / "registry.db"))
        >>> first = registry.admit(Request(kind="train", host="a"))
        >>> second = registry.admit(Request(kind="train", host="a"))
        >>> first.allowed, second.code, second.reason
        (True, 'host_limit', '1 of kind train on a, 1 allowed')
        >>> registry.release(first.lease.id, succeeded=True)
        True
    """

    def __init__(
        self,
        database: Database,
        *,
        limits: LimitsConfig | None = None,
        breaker: BreakerConfig | None = None,
        clock: Callable[[], ClockReading] = read_clock,
        is_alive: Callable[[Process], bool | None] = is_alive,
        draw: Callable[[], float] = random.random,
        peak: Callable[[float, float], float] | None = None,
        target_ratio: float = 0.8,
        busy_s: float = BUSY_STANDARD_S,
    ) -> None:
        if not 0.0 < target_ratio <= 1.0:
            raise ValueError(f"`target_ratio` must be in (0, 1], got {target_ratio}.")
        self.database, self.limits = database, limits or LimitsConfig()
        self._breaker = breaker or BreakerConfig()
        self._clock, self._is_alive, self._draw = clock, is_alive, draw
        self._peak, self._target_ratio, self._busy_s = peak, target_ratio, busy_s

    def admit(self, request: Request) -> Decision:
        """Return whether a task may start, with a lease if so.

        Raises:
            ValueError: If there is no such kind of task.
            TimeoutError: If other processes write all the time.
        """
        self.limits.check_kind(request.kind)
        with self._session() as session:
            held = session.leases.get(request.id)
            if held is not None:  # the answer was lost on its way
                return Decision(allowed=True, code="admitted", reason=_words(held), lease=held)
            desk = self._desk(session, request)
            rules = (rule(desk) for rule in RULES)
            refusal = next((rule for rule in rules if not rule.is_met), None)
            if refusal is None:
                decision = self._give(session, desk)
            else:
                place = self._place(desk, refusal.code)
                decision = replace(Decision.refused(refusal), ticket=place)
            count_answer(session.connection, decision.code)
        return decision

    def why(self, request: Request) -> Decision:
        """Return what `admit` would, with all rules as they stand; nothing changes.

        Raises:
            ValueError: If there is no such kind of task.
            TimeoutError: If other processes write all the time.
        """
        self.limits.check_kind(request.kind)
        with self._session(keeps=False) as session:
            desk = self._desk(session, request)
            rules = tuple(rule(desk) for rule in RULES)
        refusal = next((rule for rule in rules if not rule.is_met), None)
        if refusal is None:
            return Decision(allowed=True, code="admitted", reason="it would start", rules=rules)
        return replace(Decision.refused(refusal), rules=rules)

    def cancel(self, ticket: str) -> None:
        """Give up a place in the queue."""
        with self._session() as session:
            session.tickets.drop(ticket)

    def progress(self, lease_id: str) -> None:
        """Take in that a start has succeeded, since its task has done something useful."""
        with self._session() as session:
            lease = session.leases.get(lease_id)
            if lease is not None:
                session.leases.progress(lease)

    def heartbeat(
        self,
        lease_id: str,
        *,
        requested: float | None = None,
        utilization_pct: float | None = None,
        vram_peak_bytes: int | None = None,
        ram_peak_bytes: int | None = None,
        cores_used: float | None = None,
    ) -> Beat:
        """Take a sign of life, and what the task uses.

        Args:
            lease_id: Whose.
            requested: The part of the host's time that it asks for; `None` leaves it as it is,
                since a command and the task in it both give signs of life.
            utilization_pct: Of the host.
            vram_peak_bytes: GPU memory that the task has used at most.
            ram_peak_bytes: The same of memory.
            cores_used: CPU cores, on average.
        """
        used = (vram_peak_bytes, ram_peak_bytes, cores_used)
        with self._session() as session:
            lease = session.leases.get(lease_id)
            if lease is None:
                return Beat(is_held=False)
            session.connection.execute(
                "UPDATE lease SET beat_s = ?, requested = COALESCE(?, requested), "
                "vram_peak_bytes = MAX(COALESCE(vram_peak_bytes, 0), COALESCE(?, 0)), "
                "ram_peak_bytes = MAX(COALESCE(ram_peak_bytes, 0), COALESCE(?, 0)), "
                "cores_used = COALESCE(?, cores_used) WHERE id = ?",
                (session.now_s, requested, *used, lease_id),
            )
            if utilization_pct is not None and self.limits.dynamic is not None:
                note_use(
                    session.connection,
                    lease.host,
                    self.limits.dynamic,
                    utilization_pct,
                    session.now_s,
                )
            grant = grant_of(session.connection, lease, self._target_ratio)
        return Beat(is_held=True, grant=None if requested is None else grant)

    def release(self, lease_id: str, *, succeeded: bool | None) -> bool:
        """Take a lease back, and return whether it was held.

        Args:
            lease_id: Which.
            succeeded: Whether its task has; `None` if it was stopped from outside.
        """
        # Who asks knows how it ended, also if the process that held it is gone by now.
        with self._session(reclaims=False) as session:
            lease = session.leases.get(lease_id)
            if lease is not None:
                session.leases.end(lease, succeeded=succeeded)
        return lease is not None

    def leases(self) -> tuple[Lease, ...]:
        """Return the leases that are held, the oldest first."""
        with self._session(keeps=False) as session:
            return tuple(session.leases.all())

    def state(self) -> dict[str, Any]:
        """Return all there is to know, as JSON has it."""
        with self._session(keeps=False) as session:
            return state_of(
                session.connection,
                now_s=session.now_s,
                leases=session.leases.all(),
                breakers=session.breakers,
                num_starts=num_starts(session.connection, self.limits, session.now_s),
                limits=self.limits,
                folder=self.database.path.parent,
            )

    # Edits, written down with who made them

    def reserve(
        self,
        name: str,
        *,
        host: str | None = None,
        kind: str | None = None,
        gpus: int | None = None,
        for_s: float | None = None,
        by: str | None = None,
    ) -> None:
        """Keep a host, or some of its GPUs, for tasks that ask for this reservation.

        Args:
            name: That they ask by; one of this name is replaced.
            host: Which. Default: this one.
            kind: Only tasks of this kind are kept out. Default: all.
            gpus: So many GPUs. Default: the whole host.
            for_s: For how long. Default: until `unreserve`.
            by: Who does this. Default: this user.

        Raises:
            ValueError: If an argument is not valid.
        """
        if kind is not None:
            self.limits.check_kind(kind)
        with self._edits(by) as edits:
            edits.reserve(name, host=host, kind=kind, gpus=gpus, for_s=for_s)

    def unreserve(self, name: str, *, by: str | None = None) -> bool:
        """Drop a reservation, and return whether there was one."""
        with self._edits(by) as edits:
            return edits.unreserve(name)

    def halt(self, reason: str, by: str | None = None) -> None:
        """Refuse all starts until `resume`; what runs goes on."""
        with self._edits(by) as edits:
            edits.order("halted", reason)

    def pause(self, reason: str, by: str | None = None) -> None:
        """Do as `halt`, for something that will pass by itself."""
        with self._edits(by) as edits:
            edits.order("paused", reason)

    def resume(self, by: str | None = None) -> bool:
        """Allow starts again, and return whether they were not; a HALT file is removed."""
        with self._edits(by) as edits:
            return edits.resume(self.database.path.parent)

    def reset_breaker(self, key: str, *, by: str | None = None) -> bool:
        """Close a breaker, such as "kind:train", and return whether it remembered anything."""
        with self._edits(by) as edits:
            return edits.reset_breaker(key)

    # One transaction

    @contextlib.contextmanager
    def _session(self, *, keeps: bool = True, reclaims: bool = True) -> Iterator[_Session]:
        reading = self._clock()
        open_transaction = self.database.write if keeps else self.database.rehearse
        # Who only asks is answered soon, or told that it is not possible now.
        busy_s = self._busy_s if keeps else min(self._busy_s, BUSY_QUICK_S)
        with open_transaction(busy_s=busy_s) as connection:
            now_s = registry_now_s(connection, reading)
            breakers = BreakerRows(connection, self._breaker, now_s, self._draw)
            session = _Session(
                connection=connection,
                now_s=now_s,
                wall_s=reading.wall_s,
                breakers=breakers,
                leases=LeaseRows(
                    connection=connection, now_s=now_s, breakers=breakers, is_alive=self._is_alive
                ),
                tickets=TicketRows(connection=connection, now_s=now_s, is_alive=self._is_alive),
            )
            if reclaims:
                session.leases.reclaim()
                session.tickets.reclaim()
            yield session
            breakers.save()

    @contextlib.contextmanager
    def _edits(self, by: str | None) -> Iterator[Edits]:
        with self._session() as session:
            yield Edits(session.connection, session.now_s, by or user_name(), session.breakers)

    def _desk(self, session: _Session, request: Request) -> Desk:
        note_machine(session.connection, request, self.limits.dynamic)
        return Desk(
            connection=session.connection,
            request=request,
            limits=self.limits,
            now_s=session.now_s,
            wall_s=session.wall_s,
            breakers=session.breakers,
            tickets=session.tickets,
            folder=self.database.path.parent,
            peak=self._peak,
        )

    def _give(self, session: _Session, desk: Desk) -> Decision:
        request, limits = desk.request, self.limits
        delay_s = start_delay_s(limits, num_starts(desk.connection, limits, desk.now_s))
        desk.tickets.drop(request.ticket)
        lease = session.leases.add(request)
        keys = breaker_keys(request.host, request.kind, request.run)
        session.breakers.begin(keys, lease.id)
        note_start(desk.connection, request.kind, request.host, limits, desk.now_s)
        return Decision(
            allowed=True, code="admitted", reason=_words(lease), delay_s=delay_s, lease=lease
        )

    def _place(self, desk: Desk, code: str) -> str | None:
        """Return the place in the queue that a request which was refused has from now on."""
        if desk.request.wait and code not in FINAL:
            return desk.tickets.keep(desk.request, uuid.uuid4().hex)
        desk.tickets.drop(desk.request.ticket)
        return None


@dataclass(frozen=True, kw_only=True)
class _Session:
    """One open transaction, and what is done in it."""

    connection: sqlite3.Connection
    now_s: float
    wall_s: float
    breakers: BreakerRows
    leases: LeaseRows
    tickets: TicketRows


def _words(lease: Lease) -> str:
    return f"{lease.kind} on {lease.host}"
