"""The rules of admission on how fast tasks start."""

from __future__ import annotations

import sqlite3

from lightning_elche.coordination.registry.bucket import Bucket, Rate
from lightning_elche.coordination.registry.limits import KIND_RATES, LimitsConfig
from lightning_elche.coordination.registry.request import Rule

__all__ = ["back_pressure", "cooldown", "note_start", "num_starts", "rate_limits"]

ALL = "all"


def back_pressure(connection: sqlite3.Connection, limits: LimitsConfig, now_s: float) -> Rule:
    """Not too many have started lately."""
    count = num_starts(connection, limits, now_s)
    reason = f"{count} starts in {limits.window_s:g} s, {limits.window_max} allowed"
    if count < limits.window_max:
        return Rule(code="backpressure", is_met=True, reason=reason)
    (first_s,) = connection.execute(
        "SELECT at_s FROM spawn_log ORDER BY at_s DESC LIMIT 1 OFFSET ?", (limits.window_max - 1,)
    ).fetchone()
    wait_s = first_s + limits.window_s - now_s
    return Rule(code="backpressure", is_met=False, reason=reason, retry_after_s=wait_s)


def num_starts(connection: sqlite3.Connection, limits: LimitsConfig, now_s: float) -> int:
    """Return how many have started within the window."""
    (count,) = connection.execute(
        "SELECT COUNT(*) FROM spawn_log WHERE at_s > ?", (now_s - limits.window_s,)
    ).fetchone()
    return int(count)


def cooldown(connection: sqlite3.Connection, host: str, limits: LimitsConfig, now_s: float) -> Rule:
    """The last start on the host is a while ago."""
    (last_s,) = connection.execute(
        "SELECT MAX(at_s) FROM spawn_log WHERE host = ?", (host,)
    ).fetchone()
    since_s = float("inf") if last_s is None else now_s - last_s
    ago = "none before" if last_s is None else f"{since_s:.1f} s ago"
    reason = f"last start on {host}: {ago}, {limits.cooldown_s:g} s between two"
    wait_s = max(0.0, limits.cooldown_s - since_s)
    return Rule(code="cooldown", is_met=wait_s <= 0.0, reason=reason, retry_after_s=wait_s)


def rate_limits(
    connection: sqlite3.Connection, kind: str, limits: LimitsConfig, now_s: float
) -> Rule:
    """There is a token for its kind, and one for all."""
    waits = {
        name: _bucket(connection, name, rate, now_s).wait_s(now_s, rate)
        for name, rate in _rates(kind, limits).items()
    }
    name = max(waits, key=lambda each: waits[each])
    if waits[name] > 0.0:
        rate = _rates(kind, limits)[name]
        reason = f"{60.0 * rate.per_s:g} starts per minute of {name}, {rate.burst} at once"
        return Rule(code="rate_limited", is_met=False, reason=reason, retry_after_s=waits[name])
    return Rule(code="rate_limited", is_met=True, reason=f"a token for each of {', '.join(waits)}")


def note_start(
    connection: sqlite3.Connection, kind: str, host: str, limits: LimitsConfig, now_s: float
) -> None:
    """Take one token of each bucket, and write the start into the log."""
    for name, rate in _rates(kind, limits).items():
        bucket = _bucket(connection, name, rate, now_s).taken(now_s, rate)
        connection.execute(
            "INSERT OR REPLACE INTO bucket VALUES (?, ?, ?)", (name, bucket.tokens, bucket.at_s)
        )
    kept_s = max(limits.window_s, limits.cooldown_s)
    connection.execute("DELETE FROM spawn_log WHERE at_s < ?", (now_s - kept_s,))
    connection.execute("INSERT INTO spawn_log VALUES (?, ?, ?)", (now_s, kind, host))


def _rates(kind: str, limits: LimitsConfig) -> dict[str, Rate]:
    rates = {}
    if kind in KIND_RATES:
        per_min, burst = KIND_RATES[kind]
        rates[kind] = Rate(per_s=per_min / 60.0, burst=burst)
    return {**rates, ALL: Rate(per_s=limits.rate_per_min / 60.0, burst=limits.burst)}


def _bucket(connection: sqlite3.Connection, name: str, rate: Rate, now_s: float) -> Bucket:
    row = connection.execute("SELECT tokens, at_s FROM bucket WHERE name = ?", (name,)).fetchone()
    if row is None:
        return Bucket(tokens=float(rate.burst), at_s=now_s)
    return Bucket(tokens=row[0], at_s=row[1])
