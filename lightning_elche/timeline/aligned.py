"""The logs of all ranks of a run, on the clock of the first one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from lightning_elche.timeline.bulk import in_bulk
from lightning_elche.timeline.causes import Slice, Span, slices_of, totals_of
from lightning_elche.timeline.clock import ClockOffset, offset_from_ends, offset_from_wall
from lightning_elche.timeline.events import Record
from lightning_elche.timeline.reader import RankLog, read_run
from lightning_elche.timeline.verdict import RankTimes, Verdict, judge

__all__ = ["RankTimeline", "RunTimeline", "align", "load"]

BACKGROUND = frozenset(("upload",))
LOST_AFTER_NS = 2 * 10**9
OVERHEAD_TARGET = 0.05


@dataclass(frozen=True, kw_only=True)
class RankTimeline:
    """One rank, in nanoseconds since the begin of the run.

    Attributes:
        log: What it has recorded.
        offset: How its clock stands to that of the first rank.
        spans: What its main thread did.
        background: What its other threads did.
        points: What happened and what was measured, with times in nanoseconds.
        slices: Its causes, without a gap.
        waits: Part of its time that it waited, by averaging event.
        origin_ns: Where the run begins on the clock of the first rank.
    """

    log: RankLog
    offset: ClockOffset
    spans: list[Span]
    background: list[Span]
    points: list[tuple[float, Record]]
    slices: list[Slice]
    waits: list[float]
    origin_ns: float

    def place(self, t_ns: float) -> float:
        """Return a time on the rank's own clock in nanoseconds since the begin of the run."""
        return self.offset.to_first(t_ns) - self.origin_ns

    @property
    def rank(self) -> int:
        """Which rank."""
        return self.log.rank

    @property
    def device(self) -> str:
        """On what it trained."""
        header = self.log.header
        return f"{header.get('device', 'unknown device')} on {header.get('host', 'unknown host')}"

    @cached_property
    def times(self) -> RankTimes:
        """Where its time went."""
        return RankTimes(
            rank=self.rank, device=self.device, totals=totals_of(self.slices), waits=self.waits
        )

    def of_kind(self, kind: str) -> list[tuple[float, Record]]:
        """Return what happened or was measured, of one kind."""
        return [point for point in self.points if point[1].k == kind]


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
    """

    ranks: list[RankTimeline]
    header: Mapping[str, Any]
    missing: list[int]
    notes: list[str] = field(default_factory=list)
    begin_ns: float
    end_ns: float

    def verdicts(self) -> list[Verdict]:
        """Return what cost the ranks time."""
        target = self.header.get("overhead_target") or OVERHEAD_TARGET
        return judge([rank.times for rank in self.ranks], overhead_target=target)


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
    """Put logs on one clock; as `load`."""
    first = logs[0]
    offsets = [_offset(log, first) for log in logs]
    bounds = [_bounds(log, offset) for log, offset in zip(logs, offsets, strict=True)]
    origin_ns = min(begin for begin, _ in bounds)
    end_ns = min(max(end for _, end in bounds) - origin_ns, until_ns)
    if not 0.0 <= since_ns < end_ns:
        raise ValueError(
            f"`since` and `until` must be within the {end_ns / 1e9:.1f} seconds of the run, got "
            f"{since_ns / 1e9:g} and {until_ns / 1e9:g}."
        )
    world = int(first.header.get("world", len(logs)))
    missing = sorted(set(range(world)) - {log.rank for log in logs})
    ranks = [
        _rank_timeline(log, offset, origin_ns, (since_ns, end_ns))
        for log, offset in zip(logs, offsets, strict=True)
    ]
    return RunTimeline(
        ranks=ranks,
        header=first.header,
        missing=missing,
        notes=[*_notes_on_missing(missing), *_notes(logs, offsets, bounds)],
        begin_ns=since_ns,
        end_ns=end_ns,
    )


def _rank_timeline(
    log: RankLog, offset: ClockOffset, origin_ns: float, shown: tuple[float, float]
) -> RankTimeline:
    main: list[Span] = []
    background: list[Span] = []
    points: list[tuple[float, Record]] = []
    for record in log.records:
        start_ns = offset.to_first(record.t_ns) - origin_ns
        stop_ns = start_ns + record.dur_ns
        if record.ph == "X":
            spans = background if record.k in BACKGROUND else main
            spans.append(Span(record.k, start_ns, stop_ns, record.a))
        elif record.ph != "M":
            points.append((start_ns, record))
    begin_ns, end_ns = (bound - origin_ns for bound in _bounds(log, offset))
    slices = slices_of(main, begin_ns, end_ns)
    low, high = shown
    return RankTimeline(
        log=log,
        offset=offset,
        spans=[span for span in main if span.end_ns > low and span.start_ns < high],
        background=[span for span in background if span.end_ns > low and span.start_ns < high],
        points=[point for point in points if low <= point[0] <= high],
        slices=[_cut(piece, low, high) for piece in slices if _is_within(piece, low, high)],
        waits=_waits(points),
        origin_ns=origin_ns,
    )


def _is_within(piece: Slice, low: float, high: float) -> bool:
    return piece.end_ns > low and piece.start_ns < high


def _cut(piece: Slice, low: float, high: float) -> Slice:
    if piece.start_ns >= low and piece.end_ns <= high:
        return piece
    start_ns, end_ns = max(piece.start_ns, low), min(piece.end_ns, high)
    part = (end_ns - start_ns) / (piece.end_ns - piece.start_ns)
    return Slice(start_ns, end_ns, {cause: part * ns for cause, ns in piece.causes.items()})


def _waits(points: Sequence[tuple[float, Record]]) -> list[float]:
    """Return, of each averaging event but the first, the part since the one before that waited."""
    averages = [(t_ns, record.a) for t_ns, record in points if record.k == "average"]
    return [
        min(1.0, a.get("wait_ns", 0) / (t_ns - before_ns))
        for (before_ns, _), (t_ns, a) in pairwise(averages)
        if t_ns > before_ns
    ]


def _offset(log: RankLog, first: RankLog) -> ClockOffset:
    boots = {rank.header.get("boot") for rank in (log, first)}
    if log is first or (len(boots) == 1 and None not in boots and "" not in boots):
        return ClockOffset(((0.0, 0.0),), "same")
    return offset_from_ends(_ends(log), _ends(first)) or offset_from_wall(_wall(log), _wall(first))


def _ends(log: RankLog) -> dict[int, int]:
    clocks = (record for record in log.records if record.k == "clock" and "average" in record.a)
    return {record.a["average"]: record.t_ns for record in clocks}


def _wall(log: RankLog) -> tuple[int, int]:
    return next((r.t_ns, r.a["wall_ns"]) for r in log.records if r.k == "clock")


def _bounds(log: RankLog, offset: ClockOffset) -> tuple[float, float]:
    """Return begin and end of a log; what it holds after the end of training does not count."""
    begin_ns = min(record.t_ns for record in log.records)
    ends = (record.t_ns for record in log.records if record.k == "clock" and record.a.get("closed"))
    end_ns = next(ends, None)
    if end_ns is None:
        end_ns = max(record.t_ns + record.dur_ns for record in log.records)
    return offset.to_first(begin_ns), offset.to_first(end_ns)


def _notes_on_missing(missing: Sequence[int]) -> list[str]:
    if not missing:
        return []
    ranks = ", ".join(map(str, missing))
    return [f"There is no event log of rank {ranks}: it was not started, or wrote elsewhere."]


def _notes(
    logs: Sequence[RankLog],
    offsets: Sequence[ClockOffset],
    bounds: Sequence[tuple[float, float]],
) -> list[str]:
    last_ns = max(end for _, end in bounds)
    notes = []
    for log, offset, (_, end_ns) in zip(logs, offsets, bounds, strict=True):
        name = f"Rank {log.rank}"
        if not log.is_closed and last_ns - end_ns > LOST_AFTER_NS:
            notes.append(
                f"{name} was lost: its log breaks off {(last_ns - end_ns) / 1e9:.1f} s before the "
                "last one."
            )
        elif not log.is_closed:
            notes.append(f"{name} has not ended its log: it still runs, or was killed.")
        if log.num_cut:
            notes.append(f"{name}: {log.num_cut} lines of its log could not be read.")
        if log.num_dropped:
            notes.append(f"{name}: {log.num_dropped} records were dropped.")
        if offset.source == "wall":
            notes.append(
                f"{name} met the first one at fewer than three averages: it is placed by its wall "
                "clock, which may be off."
            )
        if log.header.get("approx"):
            notes.append(f"{name}: waiting for data is approximate, by the gaps between hooks.")
    return notes
