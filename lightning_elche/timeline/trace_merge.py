"""A trace of torch.profiler beside the trace of a run."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from lightning_elche.timeline.aligned import RunTimeline

__all__ = ["read_profile"]

FIRST_PID = 1_000_000  # beyond those of hosts
TIMED = frozenset("XiICbensftPOvNDBE")


def read_profile(path: Path, timeline: RunTimeline) -> list[dict[str, Any]]:
    """Return the events of a trace by torch.profiler, at their place in the run.

    It is placed by its wall clock, or, if it does not tell that, at the begin of the run.

    Raises:
        ValueError: If it is no such trace.
    """
    data = path.read_bytes()
    try:
        trace = json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
    except (ValueError, OSError) as err:
        raise ValueError(f"`merge` must be a trace in JSON, got {path}: {err}.") from err
    events = trace.get("traceEvents") if isinstance(trace, dict) else trace
    if not isinstance(events, list):
        raise ValueError(f"`merge` must be a trace with `traceEvents`, got {path}.")
    shift_us = _shift_us(trace, events, timeline)
    pids: dict[Any, int] = {}
    return [_moved(event, shift_us, pids) for event in events if "pid" in event]


def _shift_us(trace: Any, events: list[dict[str, Any]], timeline: RunTimeline) -> float:  # noqa: ANN401  # JSON
    base_ns = trace.get("baseTimeNanoseconds") if isinstance(trace, dict) else None
    if base_ns is None:
        return -min((float(event["ts"]) for event in events if "ts" in event), default=0.0)
    first = timeline.ranks[0]
    clock = next(first.log.clocks())
    wall_at_zero_ns = clock.a["wall_ns"] - first.place(clock.t_ns)
    return float((base_ns - wall_at_zero_ns) / 1000.0)


def _moved(event: dict[str, Any], shift_us: float, pids: dict[Any, int]) -> dict[str, Any]:
    pid = pids.setdefault(event["pid"], FIRST_PID + len(pids))
    moved = {**event, "pid": pid}
    if event.get("ph") in TIMED and "ts" in event:
        moved["ts"] = float(event["ts"]) + shift_us
    return moved
