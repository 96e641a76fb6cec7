"""The rules of admission on how many tasks there are, and what they need."""

from __future__ import annotations

import sqlite3
import statistics
from collections.abc import Sequence

from lightning_elche.coordination.registry.capacity import Peaks, capacity
from lightning_elche.coordination.registry.limits import CLASSES, LimitsConfig
from lightning_elche.coordination.registry.request import Request, Rule

__all__ = ["cluster_limit", "host_limit", "memory", "peaks_of", "reservations"]

POLL_S = 1.0  # when to ask again, since nobody knows when a task ends
MEASURED_TASKS = 100  # the latest of a kind on a host
PEAK_PART = 0.9


def reservations(connection: sqlite3.Connection, request: Request, now_s: float) -> Rule:
    """What it needs is not kept for others."""
    rows = connection.execute(
        "SELECT r.name, r.gpus, COALESCE(SUM(l.gpus), 0) FROM reservation r LEFT JOIN lease l "
        "ON l.reservation = r.name AND l.host = r.host "
        "WHERE r.host = ? AND r.kind IN ('', ?) AND r.name != ? "
        "AND (r.until_s IS NULL OR r.until_s > ?) GROUP BY r.name ORDER BY r.name",
        (request.host, request.kind, request.reservation, now_s),
    ).fetchall()
    for name, gpus, _ in rows:
        if gpus is None:
            return _refuse("reserved", f"{request.host} is reserved for {name}")
    kept = sum(max(0, gpus - used) for _, gpus, used in rows)
    if not kept or not request.gpus:
        return _meet("reserved", f"nothing that it needs on {request.host} is reserved for others")
    (taken,) = connection.execute(
        "SELECT COALESCE(SUM(gpus), 0) FROM lease WHERE host = ?", (request.host,)
    ).fetchone()
    total = request.machine.gpus
    names = ", ".join(name for name, _, _ in rows)
    reason = f"{kept} of {total} GPUs of {request.host} are reserved for {names}, {taken} in use"
    is_met = request.gpus + kept + taken <= total
    return _meet("reserved", reason) if is_met else _refuse("reserved", reason)


def host_limit(connection: sqlite3.Connection, request: Request, limits: LimitsConfig) -> Rule:
    """There are not too many of its kind on the host."""
    (count,) = connection.execute(
        "SELECT COUNT(*) FROM lease WHERE host = ? AND kind = ?", (request.host, request.kind)
    ).fetchone()
    limit = _host_limit(connection, request, limits)
    return _compared("host_limit", count, limit, f"of kind {request.kind} on {request.host}")


def cluster_limit(connection: sqlite3.Connection, request: Request, limits: LimitsConfig) -> Rule:
    """There are not too many of its kind on all hosts together."""
    (count,) = connection.execute(
        "SELECT COUNT(*) FROM lease WHERE kind = ?", (request.kind,)
    ).fetchone()
    limit = limits.cluster.get(request.kind)
    return _compared("cluster_limit", count, limit, f"of kind {request.kind} on all hosts")


def memory(connection: sqlite3.Connection, request: Request) -> Rule:
    """The host has the GPUs and the memory that it needs, beside what others have asked for."""
    machine = request.machine
    if not (request.gpus or request.vram_bytes or request.ram_bytes):
        return _meet("capacity", "it does not say that it needs any")
    if (request.gpus or request.vram_bytes) and machine.cores and not machine.gpus:
        return _refuse("too_large", _no_gpu(request))
    ram, vram, shared_gpus, whole_gpus = connection.execute(
        "SELECT COALESCE(SUM(ram_bytes), 0), COALESCE(SUM(vram_bytes), 0), "
        "COALESCE(MAX(CASE WHEN vram_bytes > 0 THEN gpus ELSE 0 END), 0), "
        "COALESCE(SUM(CASE WHEN vram_bytes = 0 THEN gpus ELSE 0 END), 0) "
        "FROM lease WHERE host = ?",
        (request.host,),
    ).fetchone()
    per_gpu = machine.vram_bytes / machine.gpus if machine.gpus else 0.0
    needs_whole = request.gpus if request.vram_bytes == 0 else 0
    checks = (
        ("GPUs", request.gpus, whole_gpus + (shared_gpus if needs_whole else 0), machine.gpus),
        (
            "bytes of GPU memory",
            request.vram_bytes or needs_whole * per_gpu,
            vram + whole_gpus * per_gpu,
            machine.vram_bytes,
        ),
        ("bytes of memory", request.ram_bytes, ram, machine.ram_bytes),
    )
    for name, needed, taken, total in checks:
        if not needed or not total or needed + taken <= total:
            continue
        reason = f"it needs {needed:.0f} {name}, {request.host} has {total:.0f}"
        if needed > total:
            return _refuse("too_large", f"{reason}: it never fits")
        return _refuse("capacity", f"{reason}, of which {taken:.0f} are asked for")
    return _meet("capacity", "the host has the GPUs and the memory that it says it needs")


def peaks_of(connection: sqlite3.Connection, kind: str, host: str) -> Peaks:
    """Return what the latest tasks of a kind on a host have used."""
    rows = connection.execute(
        "SELECT vram_peak_bytes, ram_peak_bytes, cores_used FROM duration "
        "WHERE kind = ? AND host = ? AND ram_peak_bytes > 0 ORDER BY at_s DESC LIMIT ?",
        (kind, host, MEASURED_TASKS),
    ).fetchall()
    vram, ram, cores = ([row[i] for row in rows if row[i]] for i in range(3))
    return Peaks(
        vram_bytes=_upper(vram),
        ram_bytes=_upper(ram),
        cores=statistics.fmean(cores) if cores else None,
    )


def _host_limit(
    connection: sqlite3.Connection, request: Request, limits: LimitsConfig
) -> int | None:
    fixed = limits.per_host.get(request.kind)
    if request.kind != limits.kind:
        return fixed
    found: list[int | None] = [fixed]
    if limits.dynamic is not None:
        row = connection.execute(
            "SELECT slots FROM host WHERE name = ?", (request.host,)
        ).fetchone()
        found = [limits.dynamic["min"] if row is None or row[0] is None else row[0]]
    if limits.capacity == "measured":
        needs_gpu = CLASSES.get(request.kind) in ("GPU", "HYBRID")
        peaks = peaks_of(connection, request.kind, request.host)
        found.append(capacity(request.machine, peaks, needs_gpu=needs_gpu))
    return min((limit for limit in found if limit is not None), default=None)


def _no_gpu(request: Request) -> str:
    needed = f"{request.vram_bytes} bytes of GPU memory"
    if request.gpus:
        needed = "1 GPU" if request.gpus == 1 else f"{request.gpus} GPUs"
    return f"it needs {needed}, {request.host} has no GPU that a driver shows: it never fits"


def _compared(code: str, count: int, limit: int | None, what: str) -> Rule:
    if limit is None:
        return _meet(code, f"{count} {what}, no limit")
    reason = f"{count} {what}, {limit} allowed"
    return _meet(code, reason) if count < limit else _refuse(code, reason)


def _upper(values: Sequence[int]) -> int | None:
    """Return the value that all but a tenth do not exceed."""
    return sorted(values)[int(PEAK_PART * (len(values) - 1) + 0.5)] if values else None


def _refuse(code: str, reason: str) -> Rule:
    return Rule(code=code, is_met=False, reason=reason, retry_after_s=POLL_S)


def _meet(code: str, reason: str) -> Rule:
    return Rule(code=code, is_met=True, reason=reason)
