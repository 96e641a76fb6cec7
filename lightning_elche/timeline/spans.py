"""Where each rank's time went, as spans on one clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from lightning_elche.control.events import AveragingEvent
from lightning_elche.control.reports import Report

__all__ = ["Span", "spans_of"]


@dataclass(frozen=True)
class Span:
    """A rank did one kind of thing from `start_s` for `duration_s` seconds.

    `kind` is `"compute"`, `"wait"` or `"average"`.
    """

    rank: int
    kind: str
    start_s: float
    duration_s: float


def spans_of(events: Sequence[tuple[float, AveragingEvent]]) -> list[Span]:
    """Lay out the windows of all ranks.

    All ranks leave an event at the same moment, so that every span is placed backwards from it.

    Args:
        events: (end of the event in seconds, the event), in order.

    Returns:
        Spans in order of time on each rank; the last event is left out, since what it cost the
        other ranks would have come with the next one.
    """
    spans = []
    for (end_s, event), (_, following) in pairwise(events):
        for rank, report in enumerate(event.reports):
            spans += _spans_before(end_s, rank, report.compute_ms, following.reports[rank])
    return spans


def _spans_before(end_s: float, rank: int, compute_ms: float, costs: Report) -> list[Span]:
    spans = []
    for kind, duration_ms in (
        ("average", costs.transfer_ms),
        ("wait", costs.wait_ms),
        ("compute", compute_ms),
    ):
        end_s -= duration_ms / 1000.0
        spans.append(Span(rank, kind, end_s, duration_ms / 1000.0))
    return spans[::-1]
