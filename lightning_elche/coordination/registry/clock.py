"""A clock that all processes of a host share, and that never goes back."""

from __future__ import annotations

import json
import sqlite3
import time
from dataclasses import dataclass

from lightning_elche.coordination.registry.liveness import here

__all__ = ["ClockReading", "elapsed_now_s", "read_clock", "registry_now_s"]

NAME = "clock"


@dataclass(frozen=True, kw_only=True)
class ClockReading:
    """What the clocks of the host say.

    Attributes:
        boot: Since when `monotonic_s` counts.
        monotonic_s: Seconds that only grow, the same in all processes.
        wall_s: Seconds since 1970, which may be set back.
    """

    boot: str
    monotonic_s: float
    wall_s: float


def read_clock() -> ClockReading:
    """Return what the clocks say now."""
    return ClockReading(boot=here()[0], monotonic_s=time.monotonic(), wall_s=time.time())


def elapsed_now_s(then_s: float, then: ClockReading, now: ClockReading) -> float:
    """Return the time that it is now, if it was `then_s` at another reading.

    Within a boot nothing that is done to the wall clock matters; between two, it is all there is.

    Args:
        then_s: The time.
        then: What the clocks said.
        now: What they say.
    """
    if now.boot == then.boot:
        return then_s + max(0.0, now.monotonic_s - then.monotonic_s)
    return then_s + max(0.0, now.wall_s - then.wall_s)


def registry_now_s(connection: sqlite3.Connection, reading: ClockReading) -> float:
    """Return the time of the registry, and keep it; the first time it is that of the wall clock.

    Args:
        connection: Its transaction is open.
        reading: What the clocks say.
    """
    row = connection.execute("SELECT value FROM state WHERE name = ?", (NAME,)).fetchone()
    if row is None:
        now_s = reading.wall_s
    else:
        kept = json.loads(row[0])
        now_s = elapsed_now_s(kept.pop("now_s"), ClockReading(**kept), reading)
    value = json.dumps({"now_s": now_s, **vars(reading)})
    connection.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (NAME, value))
    return now_s
