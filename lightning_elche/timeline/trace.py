"""A run as Chrome Trace Events, which ui.perfetto.dev and chrome://tracing show."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

from lightning_elche.timeline.aligned import MAX_SPANS, RankTimeline, RunTimeline
from lightning_elche.timeline.bulk import in_bulk
from lightning_elche.timeline.causes import CAUSES, Span, columns_of, exposed, window_causes
from lightning_elche.timeline.trace_points import counters_of, instants_of
from lightning_elche.timeline.trace_steps import steps_of

__all__ = ["trace_events", "write_trace"]

SLICES_PER_COLUMN = 6
LEVEL = 6

_json = json.JSONEncoder(separators=(",", ":")).encode  # `json.dumps` would make one each time

Event = dict[str, Any]


@in_bulk
def write_trace(
    timeline: RunTimeline,
    path: Path,
    *,
    detail: tuple[int, int] | None = None,
    merged: Iterable[Event] = (),
) -> None:
    """Write a trace as one JSON object, compressed if the name ends in .gz.

    Args:
        timeline: The run.
        path: The file.
        detail: As of `trace_events`.
        merged: Events of other origin that go with them.
    """
    events = chain(trace_events(timeline, detail=detail), merged)
    new = path.with_name(f"{path.name}.new")
    try:
        with _opened(new, is_packed=path.suffix == ".gz") as file:
            data = _json({**timeline.header, "notes": timeline.notes})
            file.write(f'{{"displayTimeUnit":"ms","otherData":{data},"traceEvents":[\n')
            file.write(_json(next(events)))
            file.writelines(f",\n{_json(event)}" for event in events)
            file.write("\n]}\n")
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _opened(path: Path, *, is_packed: bool) -> TextIO:
    if is_packed:
        return gzip.open(path, "wt", LEVEL, encoding="ascii")
    return path.open("w", encoding="ascii")


def trace_events(
    timeline: RunTimeline, *, detail: tuple[int, int] | None = None
) -> Iterator[Event]:
    """Yield the events of a run; times are whole microseconds since its begin.

    A run of very many windows is drawn as columns of equal width instead, so that a browser can
    show it; less of it is drawn in full.

    Args:
        timeline: The run.
        detail: Draw the steps of the windows from this index up to that one, as far as they were
            recorded.
    """
    hosts = list(dict.fromkeys(str(rank.log.header.get("host")) for rank in timeline.ranks))
    yield from _names(timeline.ranks, hosts)
    columns = MAX_SPANS // (SLICES_PER_COLUMN * len(timeline.ranks))
    for rank in timeline.ranks:
        where = _track(rank, hosts)
        drawn = (
            _columns(timeline, rank, columns)
            if timeline.is_long
            else _slices(timeline, rank, detail)
        )
        yield from ({**piece, **where} for piece in sorted(drawn, key=_order))
        below = {**where, "tid": where["tid"] + 1}
        yield from ({**_slice(s.kind, s.start_ns, s.end_ns, s.a), **below} for s in rank.background)
        yield from ({**event, **where} for event in instants_of(rank))
        yield from ({**event, **where} for event in counters_of(rank, columns))
    if not timeline.is_long:
        yield from _flows(timeline, hosts)


def _names(ranks: Iterable[RankTimeline], hosts: list[str]) -> Iterator[Event]:
    for pid, host in enumerate(hosts):
        yield _meta("process_name", pid, 0, name=host)
        yield _meta("process_sort_index", pid, 0, sort_index=pid)
    for rank in ranks:
        track = _track(rank, hosts)
        for more, name in (
            (0, f"rank {rank.rank} ({rank.device})"),
            (1, f"rank {rank.rank} background"),
        ):
            tid = track["tid"] + more
            yield _meta("thread_name", track["pid"], tid, name=name)
            yield _meta("thread_sort_index", track["pid"], tid, sort_index=tid)


def _meta(kind: str, pid: int, tid: int, **args: object) -> Event:
    return {"name": kind, "ph": "M", "pid": pid, "tid": tid, "args": args}


def _track(rank: RankTimeline, hosts: list[str]) -> dict[str, int]:
    return {"pid": hosts.index(str(rank.log.header.get("host"))), "tid": 2 * rank.rank}


def _slices(
    timeline: RunTimeline, rank: RankTimeline, detail: tuple[int, int] | None
) -> Iterator[Event]:
    """Yield the spans of a rank, cut so that they nest, and what windows hold."""
    free: dict[int, tuple[Span, list[tuple[float, float]]]] = {}
    for start_ns, end_ns, span in exposed(rank.spans, timeline.begin_ns, timeline.end_ns):
        if span is not None:
            free.setdefault(id(span), (span, []))[1].append((start_ns, end_ns))
    for span, places in free.values():
        yield _slice(span.kind, span.start_ns, span.end_ns, span.a)
        if span.kind != "window":
            continue
        if detail is not None and detail[0] <= span.a.get("index", -1) < detail[1]:
            steps = (step for place in places for step in steps_of(rank, span, place))
            yield from (_slice("step", start, end, {}) for start, end in steps)
        else:
            yield from _parts(span, places)


def _parts(window: Span, places: list[tuple[float, float]]) -> Iterator[Event]:
    """Yield the causes of a window end to end, in the places that no other span takes."""
    whole_ns = sum(end - start for start, end in places)
    left = list(places[::-1])
    for cause, ns in window_causes(window.a, whole_ns).items():
        while ns > 0.0 and left:
            start_ns, end_ns = left.pop()
            taken_ns = min(ns, end_ns - start_ns)
            yield _slice(cause, start_ns, start_ns + taken_ns, {"aggregated": True})
            ns -= taken_ns
            if start_ns + taken_ns < end_ns:
                left.append((start_ns + taken_ns, end_ns))


def _columns(timeline: RunTimeline, rank: RankTimeline, count: int) -> Iterator[Event]:
    width_ns = (timeline.end_ns - timeline.begin_ns) / count
    columns = columns_of(rank.slices, timeline.begin_ns, timeline.end_ns, count)
    for index, column in enumerate(columns):
        start_ns = timeline.begin_ns + index * width_ns
        for cause in CAUSES:
            if cause in column:
                end_ns = start_ns + column[cause]
                yield _slice(cause, start_ns, end_ns, {"aggregated": True})
                start_ns = end_ns


def _flows(timeline: RunTimeline, hosts: list[str]) -> Iterator[Event]:
    """Yield an arrow from each exchange of another rank to the same one of rank 0."""
    first, *others = timeline.ranks
    world = int(timeline.header.get("world", len(timeline.ranks)))
    ends = _exchanges(first)
    for rank in others:
        for index, (begin_us, _) in _exchanges(rank).items():
            if index in ends and begin_us <= ends[index][1]:
                flow = {"name": "average", "cat": "average", "id": index * world + rank.rank}
                yield {**flow, "ph": "s", "ts": begin_us, **_track(rank, hosts)}
                yield {**flow, "ph": "f", "bp": "e", "ts": ends[index][1], **_track(first, hosts)}


def _exchanges(rank: RankTimeline) -> dict[int, tuple[int, int]]:
    """Return the first and the last microsecond of each exchange, by index."""
    return {
        span.a["index"]: (_us(span.start_ns), max(_us(span.start_ns), _us(span.end_ns) - 1))
        for span in rank.spans
        if span.kind == "average_transfer"
    }


def _slice(name: str, start_ns: float, end_ns: float, a: Mapping[str, Any]) -> Event:
    # Both ends are rounded, not the duration, so that slices within slices stay there.
    start_us = _us(start_ns)
    args = {key: value for key, value in a.items() if key != "steps"}
    event = {"name": name, "cat": "elche", "ph": "X", "ts": start_us, "dur": _us(end_ns) - start_us}
    return {**event, "args": args} if args else event


def _us(ns: float) -> int:
    return round(ns / 1000.0)


def _order(event: Event) -> tuple[int, int]:
    return event["ts"], -event["dur"]
