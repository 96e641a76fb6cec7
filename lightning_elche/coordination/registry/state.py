"""The registry as it stands, for people and for metrics."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

from lightning_elche.coordination.registry.breaker_rows import OPENED, BreakerRows
from lightning_elche.coordination.registry.limits import LimitsConfig
from lightning_elche.coordination.registry.request import Lease
from lightning_elche.coordination.stopping.commands import read_command

__all__ = ["count_answer", "state_of"]

COUNT = "count:"
KEPT_EDITS = 20


def count_answer(connection: sqlite3.Connection, code: str) -> None:
    """Count an answer to a request by its code."""
    connection.execute(
        "INSERT INTO state VALUES (?, '1') ON CONFLICT (name) DO UPDATE SET "
        "value = CAST(value AS INTEGER) + 1",
        (COUNT + code,),
    )


def state_of(
    connection: sqlite3.Connection,
    *,
    now_s: float,
    leases: list[Lease],
    breakers: BreakerRows,
    num_starts: int,
    limits: LimitsConfig,
    folder: Path,
) -> dict[str, Any]:
    """Return everything, as JSON has it.

    Args:
        connection: Its transaction is open.
        now_s: The time of the registry.
        leases: Those that are held.
        breakers: In the same transaction.
        num_starts: In the window.
        limits: What is allowed.
        folder: Where a HALT file may lie.
    """
    return {
        "now_s": now_s,
        "halted": _order(connection, "halted") or _halt_file(folder),
        "paused": _order(connection, "paused"),
        "leases": [lease.to_dict() for lease in leases],
        "queues": _queues(connection),
        "breakers": _breakers(connection, breakers, now_s),
        "reservations": _table(connection, "reservation", "name"),
        "hosts": _hosts(connection),
        "starts": num_starts,
        "starts_allowed": limits.window_max,
        "limits": {
            kind: {"host": limits.per_host.get(kind), "cluster": limits.cluster.get(kind)}
            for kind in limits.kinds
        },
        "answers": _counts(connection, COUNT),
        "opened": _counts(connection, OPENED),
        "edits": _table(connection, "edit", "rowid DESC")[:KEPT_EDITS],
    }


def _order(connection: sqlite3.Connection, name: str) -> dict[str, Any] | None:
    row = connection.execute("SELECT value FROM state WHERE name = ?", (name,)).fetchone()
    return None if row is None else json.loads(row[0])


def _halt_file(folder: Path) -> dict[str, Any] | None:
    command = read_command(folder, "HALT")
    if command is None:
        return None
    return {"at_s": command.at, "by": command.by, "reason": command.reason}


def _queues(connection: sqlite3.Connection) -> dict[str, list[dict[str, Any]]]:
    queues: dict[str, list[dict[str, Any]]] = {}
    for ticket in _table(connection, "ticket", "position"):
        queues.setdefault(ticket["kind"], []).append(ticket)
    return queues


def _breakers(
    connection: sqlite3.Connection, breakers: BreakerRows, now_s: float
) -> dict[str, dict[str, Any]]:
    keys = [row[0] for row in connection.execute("SELECT key FROM breaker ORDER BY key")]
    return {
        key: {
            "state": int(breaker.state(now_s)),
            "failures": breaker.record.failures,
            "opens": breaker.record.opens,
            "wait_s": breaker.wait_s(now_s),
        }
        for key, breaker in breakers.get(keys).items()
    }


def _hosts(connection: sqlite3.Connection) -> dict[str, dict[str, Any]]:
    return {
        row["name"]: {"machine": json.loads(row["machine"] or "null"), "slots": row["slots"]}
        for row in _table(connection, "host", "name")
    }


def _counts(connection: sqlite3.Connection, prefix: str) -> dict[str, int]:
    rows = connection.execute(
        "SELECT name, value FROM state WHERE name LIKE ? ORDER BY name", (f"{prefix}%",)
    )
    return {name.removeprefix(prefix): int(value) for name, value in rows}


def _table(connection: sqlite3.Connection, table: str, order: str) -> list[dict[str, Any]]:
    found = connection.execute(f"SELECT * FROM {table} ORDER BY {order}")
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found]
