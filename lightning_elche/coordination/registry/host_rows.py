"""What the registry knows of hosts, and how their tasks split them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict

from lightning_elche.coordination.registry.capacity import Machine, moved_slots
from lightning_elche.coordination.registry.negotiate import negotiate
from lightning_elche.coordination.registry.request import Lease, Request

__all__ = ["grant_of", "note_machine", "note_use"]


def note_machine(
    connection: sqlite3.Connection, request: Request, dynamic: Mapping[str, int] | None
) -> None:
    """Keep what a host has, if a request says it.

    Args:
        connection: Its transaction is open.
        request: Names the host.
        dynamic: Where the number of its tasks may move; it begins with the fewest.
    """
    slots = None if dynamic is None else dynamic["min"]
    machine = "" if request.machine == Machine() else json.dumps(asdict(request.machine))
    if not machine and slots is None:
        return
    connection.execute(
        "INSERT INTO host VALUES (?, ?, ?, NULL) ON CONFLICT (name) DO UPDATE SET "
        "machine = CASE excluded.machine WHEN '' THEN machine ELSE excluded.machine END, "
        "slots = COALESCE(slots, excluded.slots)",
        (request.host, machine, slots),
    )


def note_use(
    connection: sqlite3.Connection,
    host: str,
    dynamic: Mapping[str, int],
    utilization_pct: float,
    now_s: float,
) -> None:
    """Move the number of tasks that a host may have with how busy it is."""
    row = connection.execute("SELECT slots, moved_s FROM host WHERE name = ?", (host,)).fetchone()
    bounds = (dynamic["min"], dynamic["max"])
    slots, moved_s = row or (None, None)
    slots = bounds[0] if slots is None else slots
    moved = moved_slots(
        slots,
        utilization_pct=utilization_pct,
        bounds=bounds,
        since_s=float("inf") if moved_s is None else now_s - moved_s,
    )
    if moved != slots or row is None:
        connection.execute(
            "INSERT INTO host VALUES (?, '', ?, ?) ON CONFLICT (name) DO UPDATE SET "
            "slots = excluded.slots, moved_s = excluded.moved_s",
            (host, moved, now_s),
        )


def grant_of(connection: sqlite3.Connection, lease: Lease, target_ratio: float) -> float | None:
    """Return what a task may use of its host's time, `None` if it asks for nothing."""
    rows = connection.execute(
        "SELECT id, requested, weight FROM lease WHERE host = ? AND requested IS NOT NULL "
        "ORDER BY id",
        (lease.host,),
    ).fetchall()
    grants = negotiate([(requested, weight) for _, requested, weight in rows], target_ratio)
    return dict(zip((row[0] for row in rows), grants, strict=True)).get(lease.id)
