"""The logs of all ranks of a run, on the clock of the first one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lightning_elche.timeline.bulk import in_bulk
from lightning_elche.timeline.clock import ClockOffset, offset_from_ends, offset_from_wall
from lightning_elche.timeline.notes import notes_of
from lightning_elche.timeline.placed import Placing, RankTimeline
from lightning_elche.timeline.reader import RankLog, read_run
from lightning_elche.timeline.verdict import Verdict, judge

__all__ = ["RankTimeline", "RunTimeline", "align", "load"]

MAX_SPANS = 250_000
OVERHEAD_TARGET = 0.05


@dataclass(frozen=True, kw_only=True)
class RunTimeline:
    """All ranks of a run.

    Attributes:
        ranks: Those with a log.
        header: What is true of the whole run, as the first of them has recorded it.
        missing: Ranks without a log.
        notes: What a reader has to know about the logs.
        begin_ns: Where the part that is shown begins, since the begin of the run.
        end_ns: Where it ends.
        is_long: Whether there are too many spans to draw each, so that none is kept.
    """

    ranks: list[RankTimeline]
    header: Mapping[str, Any]
    missing: list[int]
    notes: list[str] = field(default_factory=list)
    begin_ns: float
    end_ns: float
    is_long: bool = False

    def verdicts(self) -> list[Verdict]:
        """Return what cost the ranks time."""
        target = self.header.get("overhead_target") or OVERHEAD_TARGET
        return judge([rank.times for rank in self.ranks], overhead_target=target)


@dataclass(frozen=True, kw_only=True)
class _Clocks:
    """When a log begins, on the monotonic and the wall clock, when averages ended, and training."""

    begin: tuple[int, int]
    ends: Mapping[int, int]
    closed_ns: int | None


@in_bulk
def load(folder: Path, *, since_s: float = 0.0, until_s: float = math.inf) -> RunTimeline:
    """Read the event logs of a run and put them on one clock.

    Args:
        folder: As of `read_run`.
        since_s: Show what happened from here on, in seconds since the begin of the run.
        until_s: Until when.

    Raises:
        NoEvents: If there are none.
        ValueError: If nothing happened between these times.
    """
    return align(read_run(folder), since_ns=1e9 * since_s, until_ns=1e9 * until_s)


def align(
    logs: Sequence[RankLog], *, since_ns: float = 0.0, until_ns: float = math.inf
) -> RunTimeline:
    """Put logs on one clock; as `load`. Of a long run, what is kept is a small part of its logs."""
    first, first_clocks = logs[0], _clocks_of(logs[0])
    placings = []
    for log in logs:
        clocks = first_clocks if log is first else _clocks_of(log)
        offset = _offset(log, first, clocks, first_clocks)
        placings.append((offset, clocks.begin[0], clocks.closed_ns))
    origin_ns = min(offset.to_first(begin_ns) for offset, begin_ns, _ in placings)
    ranks: list[RankTimeline] = []
    ends_ns: list[float] = []
    num_spans = 0
    for log, (offset, begin_ns, closed_ns) in zip(logs, placings, strict=True):
        placing = Placing(
            offset,
            begin_ns=begin_ns,
            closed_ns=closed_ns,
            origin_ns=origin_ns,
            shown=(since_ns, until_ns),
            max_spans=MAX_SPANS - num_spans,
        )
        ranks.append(placing.timeline_of(log))
        ends_ns.append(placing.end_ns)
        num_spans += placing.num_spans
        if num_spans > MAX_SPANS:
            for rank in ranks:
                rank.spans.clear()
    return _run(ranks, ends_ns, (since_ns, until_ns), is_long=num_spans > MAX_SPANS)


def _run(
    ranks: list[RankTimeline],
    ends_ns: Sequence[float],
    shown: tuple[float, float],
    *,
    is_long: bool,
) -> RunTimeline:
    since_ns, until_ns = shown
    end_ns = min(max(ends_ns), until_ns)
    if not 0.0 <= since_ns < end_ns:
        raise ValueError(
            f"`since` and `until` must be within the {end_ns / 1e9:.1f} seconds of the run, got "
            f"{since_ns / 1e9:g} and {until_ns / 1e9:g}."
        )
    header = ranks[0].log.header
    world = int(header.get("world", len(ranks)))
    missing = sorted(set(range(world)) - {rank.rank for rank in ranks})
    return RunTimeline(
        ranks=[_until(rank, end_ns) for rank in ranks],
        header=header,
        missing=missing,
        notes=notes_of(ranks, ends_ns, missing),
        begin_ns=since_ns,
        end_ns=end_ns,
        is_long=is_long,
    )


def _until(rank: RankTimeline, end_ns: float) -> RankTimeline:
    """Leave out what was recorded after the last rank has ended its training."""
    points = {
        kind: [point for point in found if point[0] <= end_ns]
        for kind, found in rank.points.items()
    }
    return replace(
        rank,
        spans=[span for span in rank.spans if span.start_ns < end_ns],
        background=[span for span in rank.background if span.start_ns < end_ns],
        points=points,
    )


def _clocks_of(log: RankLog) -> _Clocks:
    begin, closed_ns = None, None
    ends: dict[int, int] = {}
    for clock in log.clocks():
        begin = begin or (clock.t_ns, clock.a["wall_ns"])
        if "average" in clock.a:
            ends[clock.a["average"]] = clock.t_ns
        if closed_ns is None and clock.a.get("closed"):
            closed_ns = clock.t_ns
    assert begin is not None  # `read_run` returns no log without one
    return _Clocks(begin=begin, ends=ends, closed_ns=closed_ns)


def _offset(log: RankLog, first: RankLog, clocks: _Clocks, first_clocks: _Clocks) -> ClockOffset:
    boots = {rank.header.get("boot") for rank in (log, first)}
    if log is first or (len(boots) == 1 and None not in boots and "" not in boots):
        return ClockOffset(((0.0, 0.0),), "same")
    offset = offset_from_ends(clocks.ends, first_clocks.ends)
    return offset or offset_from_wall(clocks.begin, first_clocks.begin)
