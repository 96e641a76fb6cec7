"""What a run owes to the clock, written down and read back."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.control.reports import Report
from lightning_elche.control.requests import StopCause
from lightning_elche.control.schedule_record import (
    RecordedEvent,
    deal_line,
    event_line,
    header_line,
    merged,
    parse_record,
)
from lightning_elche.exceptions import ScheduleDiverged

HEADER = header_line(rank=1, world_size=2) + "\n"
TRAINED = Report(
    batches=3,
    samples=12,
    weight=12.0,
    loss_sum=1.5,
    loss_count=3,
    compute_ms=30.0,
    relative_delta=0.5,
)


def event_of(*reports: Report, index: int = 4, applied_after: int = 3) -> RecordedEvent:
    return RecordedEvent(index=index, applied_after=applied_after, reports=reports)


@given(st.floats(), st.floats(allow_nan=False), st.integers(0, 2**40))
def test_event_is_read_back_to_the_last_bit(delta: float, loss: float, batches: int) -> None:
    """Also numbers that JSON has no word for."""
    own = Report(relative_delta=delta, loss_sum=loss, batches=batches)
    event = event_of(own, TRAINED)
    record = parse_record([HEADER, event_line(event) + "\n"])
    assert repr(record.events) == repr({4: event})


def test_batches_are_sorted_by_epoch() -> None:
    """In the order in which they were first dealt, those of the next epoch counted apart."""
    deals = ((0, 0, 5), (0, 0, 2), (0, 1, 7), (0, 1, 4), (1, 1, 4), (1, 1, 3))
    lines = [deal_line(*deal) for deal in deals]
    record = parse_record([HEADER, *(f"{line}\n" for line in lines)])
    assert (record.rank, record.world_size) == (1, 2)
    assert [list(record.batches[epoch]) for epoch in (0, 1)] == [[5, 2], [7, 4, 3]]
    assert (record.num_ahead[0], record.num_ahead[1]) == (2, 0)


def test_line_without_its_end_is_left_out() -> None:
    """Its writer was killed."""
    record = parse_record([HEADER, deal_line(0, 0, 5) + "\n", '{"deal": [0, 0, 1'])
    assert record.batches == {0: {5: None}}


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ([], "line 1 is no line of a schedule"),
        (["{}\n"], "line 1 is no line of a schedule: KeyError"),
        (['{"format": "elche-schedule-9"}\n'], "`format` must be elche-schedule-1"),
        ([HEADER, "nonsense\n"], "line 2 is no line of a schedule"),
        ([HEADER, '{"deal": [1]}\n'], "line 2 is no line of a schedule"),
        ([HEADER, '{"event": 1, "applied_after": 2, "reports": [["0x1p+0"]]}\n'], "version"),
    ],
)
def test_other_lines_are_refused(lines: list[str], problem: str) -> None:
    """With the number of the line."""
    with pytest.raises(ValueError, match=problem):
        parse_record(lines)


def test_recorded_times_count() -> None:
    """They are what the controller plans by."""
    now = replace(TRAINED, compute_ms=900.0, wait_ms=7.0)
    assert merged(event_of(TRAINED, TRAINED), [now, now]) == [TRAINED, TRAINED]


def test_wishes_of_the_present_run_count() -> None:
    """A signal, or a contract that is broken, ends the run that follows a record, too."""
    then = replace(TRAINED, stop=StopCause.SIGTERM, should_stop=True)
    now = replace(TRAINED, stop=StopCause.SIGINT, gate_abort=27)
    (report,) = merged(event_of(then), [now])
    assert (report.stop, report.gate_abort, report.should_stop) == (StopCause.SIGINT, 27, True)
    assert merged(event_of(then), [TRAINED])[0].stop is StopCause.NONE


@pytest.mark.parametrize(
    ("field", "value"),
    [("batches", 4), ("samples", 11), ("weight", 8.0), ("loss_sum", 1.5000000000000002)],
)
def test_first_difference_is_named(field: str, value: float) -> None:
    """By event, rank and field."""
    other = replace(TRAINED, **{field: value})
    with pytest.raises(ScheduleDiverged, match=f"at averaging event 4: `{field}` of rank 1") as err:
        merged(event_of(TRAINED, TRAINED), [TRAINED, other])
    assert (err.value.event, err.value.rank, err.value.field) == (4, 1, field)
    assert (err.value.expected, err.value.actual) == (getattr(TRAINED, field), value)


def test_other_numbers_of_the_model_may_be_told_only() -> None:
    """The recorded report counts; what a rank has trained must be as then all the same."""
    told: list[ScheduleDiverged] = []
    other = replace(TRAINED, loss_sum=99.0)
    found = merged(event_of(TRAINED), [other], on_difference=told.append)
    assert found[0].loss_sum == TRAINED.loss_sum
    assert [one.field for one in told] == ["loss_sum"]
    with pytest.raises(ScheduleDiverged, match="`batches`"):
        merged(event_of(TRAINED), [replace(TRAINED, batches=99)], on_difference=told.append)


def test_numbers_that_are_none_are_equal() -> None:
    """At the first event nobody knows how far replicas are apart."""
    own = replace(TRAINED, loss_sum=math.nan)
    assert merged(event_of(own), [own])[0].batches == 3
