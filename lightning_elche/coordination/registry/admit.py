"""The rules of admission, in the order in which they are asked."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lightning_elche.coordination.registry.admit_rate import back_pressure, cooldown, rate_limits
from lightning_elche.coordination.registry.admit_room import (
    cluster_limit,
    host_limit,
    memory,
    reservations,
)
from lightning_elche.coordination.registry.breaker_rows import BreakerRows, breaker_keys
from lightning_elche.coordination.registry.lease_rows import TicketRows
from lightning_elche.coordination.registry.limits import LimitsConfig
from lightning_elche.coordination.registry.request import Request, Rule
from lightning_elche.coordination.stopping.commands import read_command

__all__ = ["POLL_S", "RULES", "Desk"]

POLL_S = 1.0  # when to ask again where nobody knows
LONGEST_POLL_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Desk:
    """A request that is looked at, in an open transaction.

    Attributes:
        connection: Of the transaction.
        request: What is asked.
        limits: What is allowed.
        now_s: The time of the registry.
        wall_s: The time of the wall clock.
        breakers: In the same transaction.
        tickets: In the same transaction.
        folder: Where a HALT file may lie.
        peak: Returns the seconds until peak hours are over, from a time of the wall clock and how
            long the task takes; 0 if it would not run in any.
    """

    connection: sqlite3.Connection
    request: Request
    limits: LimitsConfig
    now_s: float
    wall_s: float
    breakers: BreakerRows
    tickets: TicketRows
    folder: Path
    peak: Callable[[float, float], float] | None


def halt(desk: Desk) -> Rule:
    """Nobody has halted all starts."""
    command = read_command(desk.folder, "HALT")
    if command is not None:
        return _refuse("halted", f"{desk.folder / 'HALT'} is there: {command}", POLL_S)
    return _no_order(desk, "halted")


def pause(desk: Desk) -> Rule:
    """Nobody has paused them."""
    return _no_order(desk, "paused")


def closed_breakers(desk: Desk) -> Rule:
    """No breaker of the host, the kind or the run is open."""
    request = desk.request
    breakers = desk.breakers.get(breaker_keys(request.host, request.kind, request.run))
    waits = {key: breaker.wait_s(desk.now_s) for key, breaker in breakers.items()}
    key = max(waits, key=lambda name: waits[name])
    if waits[key] > 0.0:
        state = breakers[key].state(desk.now_s).name.lower().replace("_", "-")
        reason = f"the breaker {key} is {state} after failures; next try in {waits[key]:.0f} s"
        return _refuse("breaker_open", reason, waits[key])
    return _meet("breaker_open", f"{', '.join(waits)} let it through")


def first_in_queue(desk: Desk) -> Rule:
    """Nobody of its kind has waited for longer."""
    ahead = desk.tickets.ahead(desk.request)
    if ahead:
        reason = f"{ahead} of kind {desk.request.kind} have waited for longer"
        return _refuse("queued", reason, min(LONGEST_POLL_S, POLL_S * ahead))
    return _meet("queued", f"nobody of kind {desk.request.kind} has waited for longer")


def threshold(desk: Desk) -> Rule:
    """The host is not short of anything."""
    if desk.request.threshold:
        return _refuse("threshold", desk.request.threshold, LONGEST_POLL_S)
    return _meet("threshold", f"{desk.request.host} says of nothing that it is short")


def peak_hours(desk: Desk) -> Rule:
    """It will not run in peak hours."""
    expected_s = desk.request.expected_s or 0.0
    wait_s = 0.0 if desk.peak is None else desk.peak(desk.wall_s, expected_s)
    if wait_s > 0.0:
        reason = f"its {expected_s:.0f} s would reach into peak hours, over in {wait_s:.0f} s"
        return _refuse("peak_hours", reason, wait_s)
    return _meet("peak_hours", "it does not reach into peak hours")


RULES: tuple[Callable[[Desk], Rule], ...] = (
    halt,
    pause,
    closed_breakers,
    first_in_queue,
    lambda desk: reservations(desk.connection, desk.request, desk.now_s),
    lambda desk: host_limit(desk.connection, desk.request, desk.limits),
    lambda desk: cluster_limit(desk.connection, desk.request, desk.limits),
    lambda desk: memory(desk.connection, desk.request),
    threshold,
    peak_hours,
    lambda desk: back_pressure(desk.connection, desk.limits, desk.now_s),
    lambda desk: cooldown(desk.connection, desk.request.host, desk.limits, desk.now_s),
    lambda desk: rate_limits(desk.connection, desk.request.kind, desk.limits, desk.now_s),
)


def _no_order(desk: Desk, name: str) -> Rule:
    row = desk.connection.execute("SELECT value FROM state WHERE name = ?", (name,)).fetchone()
    if row is None:
        return _meet(name, f"starts are not {name}")
    order = json.loads(row[0])
    return _refuse(name, f"{name} by {order['by']}: {order['reason']}", POLL_S)


def _refuse(code: str, reason: str, retry_after_s: float) -> Rule:
    return Rule(code=code, is_met=False, reason=reason, retry_after_s=retry_after_s)


def _meet(code: str, reason: str) -> Rule:
    return Rule(code=code, is_met=True, reason=reason)
