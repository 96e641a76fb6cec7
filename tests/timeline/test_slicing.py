"""A log that is sliced while it is read has the same slices as one that is read at once."""

from __future__ import annotations

import pytest

from lightning_elche.timeline import slicing
from lightning_elche.timeline.causes import Slice, Span, slices_of, totals_of
from lightning_elche.timeline.slicing import Slicer

A = {"compute_ns": 60, "input_ns": 10}


def spans(count: int) -> list[Span]:
    """Windows with a stall in each and a wait behind, in the order in which they are written."""
    found = []
    for begin in range(0, 100 * count, 100):
        found.append(Span("input", begin + 20.0, begin + 30.0, {}))
        found.append(Span("window", float(begin), begin + 90.0, A))
        found.append(Span("average_wait", begin + 90.0, begin + 97.0, {}))
    return found


def sliced(spans: list[Span], *, low: float = 0.0, high: float = 1e9) -> list[Slice]:
    slicer = Slicer(0.0, low, high)
    for span in spans:
        slicer.add(span)
    slicer.close(1000.0)
    return list(slicer.slices)


def test_slices_do_not_depend_on_when_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether all at the end, or those of each window when the next one comes."""
    whole = slices_of(spans(10), 0.0, 1000.0)
    assert sliced(spans(10)) == whole
    monkeypatch.setattr(slicing, "MANY", 1)
    assert totals_of(sliced(spans(10))) == totals_of(whole)


def test_little_is_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many windows only the last ones."""
    monkeypatch.setattr(slicing, "MANY", 6)
    slicer = Slicer(0.0, 0.0, 1e9)
    for span in spans(1000):
        slicer.add(span)
        assert len(slicer._pending) <= 9


def test_slices_outside_of_what_is_shown_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """At both ends, with that part of their causes."""
    monkeypatch.setattr(slicing, "MANY", 1)
    slices = sliced(spans(10), low=250.0, high=345.0)
    assert (slices[0].start_ns, slices[-1].end_ns) == (250.0, 345.0)
    assert sum(totals_of(slices).values()) == pytest.approx(95.0)


def test_span_that_comes_late_counts_from_there_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it covers before has been given to others, and no time is counted twice."""
    monkeypatch.setattr(slicing, "MANY", 1)
    late = Span("checkpoint", 150.0, 995.0, {})
    slices = sliced([*spans(9), late])
    assert totals_of(slices)["checkpoint"] == pytest.approx(98.0)
    assert sum(totals_of(slices).values()) == pytest.approx(1000.0)
