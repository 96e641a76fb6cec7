"""One rank of a run, on the clock of the first one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from lightning_elche.timeline.causes import Span
from lightning_elche.timeline.clock import ClockOffset
from lightning_elche.timeline.events import Record
from lightning_elche.timeline.packed import PackedSlices, Thinned
from lightning_elche.timeline.reader import RankLog
from lightning_elche.timeline.slicing import Slicer
from lightning_elche.timeline.verdict import RankTimes

__all__ = ["Placing", "RankTimeline"]

BACKGROUND = frozenset(("upload",))
# Of what comes again and again, no more than can be drawn.
REPEATED, MAX_REPEATED = frozenset(("rank", "host", "average", "chunk")), 10_000

Point = tuple[float, Record]


@dataclass(frozen=True, kw_only=True)
class RankTimeline:
    """One rank, in nanoseconds since the begin of the run.

    Attributes:
        log: What it has recorded.
        offset: How its clock stands to that of the first rank.
        spans: What its main thread did; nothing if these are too many in the whole run.
        background: What its other threads did.
        points: What happened and what was measured, by kind; of what comes often every n-th.
        slices: Its causes, without a gap.
        waits: Part of its time that it waited, by averaging event.
        origin_ns: Where the run begins on the clock of the first rank.
    """

    log: RankLog
    offset: ClockOffset
    spans: list[Span]
    background: list[Span]
    points: Mapping[str, list[Point]]
    slices: PackedSlices
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
            rank=self.rank, device=self.device, totals=self.slices.totals(), waits=self.waits
        )

    def of_kind(self, kind: str) -> list[Point]:
        """Return what happened or was measured, of one kind."""
        return self.points.get(kind, [])


class Placing:
    """Puts what a log holds at its place in the run, record by record.

    Args:
        offset: How the rank's clock stands to that of the first rank.
        begin_ns: Where the log begins on the rank's clock.
        closed_ns: Where training ends on it; `None` if the log does not say so.
        origin_ns: Where the run begins on the clock of the first rank.
        shown: From when to when it is shown, in nanoseconds since the begin of the run.
        max_spans: Keep no spans if these are more.

    Attributes:
        end_ns: Where training ends, or the last record, in nanoseconds since the begin of the run.
        num_spans: Spans that are shown, whether they are kept or not.
    """

    def __init__(
        self,
        offset: ClockOffset,
        *,
        begin_ns: int,
        closed_ns: int | None,
        origin_ns: float,
        shown: tuple[float, float],
        max_spans: int,
    ) -> None:
        self._offset, self._origin_ns, self._shown = offset, origin_ns, shown
        self._max_spans = max_spans
        self._begin_ns = self.end_ns = self._place(begin_ns)
        self._closed_ns = math.inf if closed_ns is None else self._place(closed_ns)
        self._slicer = Slicer(self._begin_ns, *shown)
        self.num_spans = 0
        self._spans: list[Span] = []
        self._background: list[Span] = []
        self._points: dict[str, list[Point]] = {}
        self._repeated = {kind: Thinned[Point](MAX_REPEATED) for kind in REPEATED}
        self._waits: list[float] = []
        self._averaged_ns: float | None = None

    def timeline_of(self, log: RankLog) -> RankTimeline:
        """Read a log and return what it tells."""
        self._take_all(log.records())
        if not math.isinf(self._closed_ns):
            self.end_ns = self._closed_ns
        self._slicer.close(self.end_ns)
        repeated = {kind: thinned.kept for kind, thinned in self._repeated.items() if thinned.kept}
        return RankTimeline(
            log=log,
            offset=self._offset,
            spans=self._spans,
            background=self._background,
            points={**self._points, **repeated},
            slices=self._slicer.slices,
            waits=self._waits,
            origin_ns=self._origin_ns,
        )

    def _take_all(self, records: Iterable[Record]) -> None:
        for record in records:
            start_ns = self._place(record.t_ns)
            stop_ns = start_ns + record.dur_ns
            if stop_ns > self.end_ns:
                self.end_ns = stop_ns
            if record.ph == "X":
                self._take_span(Span(record.k, start_ns, stop_ns, record.a))
            elif record.ph != "M":
                self._take_point(start_ns, record)

    def _take_span(self, span: Span) -> None:
        low, high = self._shown
        is_shown = span.end_ns > low and span.start_ns < high
        if span.kind in BACKGROUND:
            if is_shown:
                self._background.append(span)
            return
        if span.start_ns < self._closed_ns:
            self._slicer.add(span)
        if is_shown:
            self.num_spans += 1
            if self.num_spans <= self._max_spans:
                self._spans.append(span)
            else:
                self._spans.clear()

    def _take_point(self, t_ns: float, record: Record) -> None:
        if record.k == "average":
            before_ns, self._averaged_ns = self._averaged_ns, t_ns
            if before_ns is not None and t_ns > before_ns:
                waited = record.a.get("wait_ns", 0) / (t_ns - before_ns)
                self._waits.append(min(1.0, waited))
        low, high = self._shown
        if low <= t_ns <= high:
            kept = self._repeated.get(record.k)
            points = self._points.setdefault(record.k, []) if kept is None else kept
            points.append((t_ns, record))

    def _place(self, t_ns: float) -> float:
        return self._offset.to_first(t_ns) - self._origin_ns
