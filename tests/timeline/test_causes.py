"""Causes add up to the time that they explain."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.timeline.causes import (
    CAUSES,
    Slice,
    Span,
    columns_of,
    exposed,
    slices_of,
    totals_of,
    window_causes,
)

spans = st.lists(
    st.builds(
        lambda kind, start, length: Span(
            kind, float(start), float(start + length), {"compute_ns": length // 2, "input_ns": 7}
        ),
        st.sampled_from(("window", "validation", "checkpoint", "input", "startup")),
        st.integers(-10, 110),
        st.integers(0, 60),
    ),
    max_size=12,
)


@given(spans=spans)
def test_causes_of_any_spans_add_up_to_the_wall_time(spans: list[Span]) -> None:
    """However they overlap, reach out, or are missing."""
    totals = totals_of(slices_of(spans, 0.0, 100.0))
    assert sum(totals.values()) == pytest.approx(100.0)
    assert min(totals.values()) >= 0.0


@given(spans=spans, count=st.integers(1, 40))
def test_columns_hold_what_the_slices_hold(spans: list[Span], count: int) -> None:
    """Nothing is lost where a slice crosses the border of a column."""
    columns = columns_of(slices_of(spans, 0.0, 100.0), 0.0, 100.0, count)
    assert all(sum(column.values()) == pytest.approx(100.0 / count) for column in columns)


def test_inner_span_counts_and_not_the_outer_one() -> None:
    """A checkpoint that validation has led to is a checkpoint."""
    outer, inner = Span("validation", 10.0, 50.0, {}), Span("checkpoint", 30.0, 40.0, {})
    totals = totals_of(slices_of([outer, inner], 0.0, 60.0))
    assert {cause: ns for cause, ns in totals.items() if ns} == {
        "validation": 30.0,
        "checkpoint": 10.0,
        "other": 20.0,
    }


def test_inner_span_ends_with_the_outer_one() -> None:
    """What reaches out of it is cut, so that slices of a track nest."""
    pieces = exposed([Span("window", 0.0, 50.0, {}), Span("input", 40.0, 60.0, {})], 0.0, 70.0)
    assert [(start, end, span and span.kind) for start, end, span in pieces] == [
        (0.0, 40.0, "window"),
        (40.0, 50.0, "input"),
        (50.0, 70.0, None),
    ]


def test_rest_of_a_window_is_hooks() -> None:
    """What neither computes nor waits is spent around the steps."""
    a = {"compute_ns": 60, "input_ns": 10, "throttle_ns": 5, "wait_ns": 5}
    assert window_causes(a, 100.0) == {
        "compute": 60.0,
        "input": 10.0,
        "throttle": 5.0,
        "average_wait": 5.0,
        "hooks": 20.0,
    }


def test_parts_longer_than_their_window_are_shrunk_to_it() -> None:
    """Clocks are read one after the other."""
    assert window_causes({"compute_ns": 90, "input_ns": 30}, 60.0) == {
        "compute": 45.0,
        "input": 15.0,
    }


def test_time_of_a_device_counts_where_the_host_runs_ahead() -> None:
    """A host that has queued its steps waits for them at the end."""
    a = {"compute_ns": 10, "input_ns": 5, "device_ns": 85}
    assert window_causes(a, 100.0) == {"compute": 80.0, "input": 5.0, "hooks": 15.0}


def test_window_of_a_rank_that_sat_out_is_that() -> None:
    """Whatever it did was in vain."""
    assert window_causes({"sits_out": True, "compute_ns": 5}, 9.0) == {"sit_out": 9.0}


def test_column_of_a_rank_that_is_gone_is_empty() -> None:
    """It did nothing, not even wait."""
    assert columns_of([Slice(0.0, 50.0, {"compute": 50.0})], 0.0, 100.0, 2) == [
        {"compute": 50.0},
        {},
    ]


def test_every_cause_has_a_total() -> None:
    """Also those that took no time."""
    assert tuple(totals_of([])) == CAUSES
