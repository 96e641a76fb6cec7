"""What happened at a moment, and what was measured then, as trace events."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from operator import itemgetter
from typing import Any

from lightning_elche.timeline.aligned import RankTimeline

__all__ = ["counters_of", "instants_of"]

OF_RANKS = {"share": "share", "samples_per_s": "samples/s", "duty": "duty"}
OF_HOSTS = ("cpu", "memory", "disk")
GLOBAL, OF_THREAD = "g", "t"


def instants_of(rank: RankTimeline) -> Iterator[dict[str, Any]]:
    """Yield what happened; a change of the anchor concerns all ranks."""
    found = (points for kind, points in rank.points.items() if kind != "average")
    for t_ns, record in sorted(chain.from_iterable(found), key=itemgetter(0)):
        if record.ph != "i":
            continue
        name, scope = record.k, OF_THREAD
        if record.k == "anchor":
            name, scope = _anchor(record.a), GLOBAL
        yield {
            "name": name,
            "cat": "elche",
            "ph": "i",
            "s": scope,
            "ts": round(t_ns / 1000.0),
            "args": record.a,
        }


def counters_of(rank: RankTimeline, max_points: int) -> Iterator[dict[str, Any]]:
    """Yield what was measured, where it changes; of more than `max_points` every n-th."""
    for kind in ("rank", "host"):
        points = rank.of_kind(kind)
        step = -(-len(points) // max_points)
        last: dict[str, float] = {}
        for t_ns, record in points[:: max(1, step)]:
            for name, value in _values(rank.rank, kind, record.a):
                if last.get(name) != value:
                    last[name] = value
                    ts = round(t_ns / 1000.0)
                    yield {"name": name, "ph": "C", "ts": ts, "args": {"value": value}}


def _values(rank: int, kind: str, a: dict[str, Any]) -> Iterator[tuple[str, float]]:
    if kind == "rank":
        yield from (
            (f"rank {rank} {word}", a[name]) for name, word in OF_RANKS.items() if name in a
        )
        if rank == 0 and "anchor" in a:
            yield "anchor", a["anchor"]
        return
    yield from ((f"{name} %", a[name]) for name in OF_HOSTS if a.get(name) is not None)
    yield from ((f"gpu {number} %", value) for number, value in enumerate(a.get("gpu") or ()))
    yield from ((f"vram {number} bytes", value) for number, value in enumerate(a.get("vram") or ()))


def _anchor(a: dict[str, Any]) -> str:
    return f"anchor {a.get('from')} -> {a.get('to')} ({a.get('reason')})"
