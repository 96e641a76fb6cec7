"""What ranks tell each other at an event."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.control.reports import Report, abort_of, check_epochs, common_event, weights_of
from lightning_elche.control.requests import StopCause
from lightning_elche.exceptions import RankMismatch

COUNT = st.integers(min_value=0, max_value=2**53)
NUMBER = st.floats(allow_nan=False)


def test_vector_starts_with_the_version() -> None:
    """The first number says how to read the others, in the order of the fields."""
    vector = Report(epoch=3, batches=7, checkpoint=True).to_vector()
    assert (vector[:3], vector[-1], len(vector)) == ([6.0, 3.0, 7.0], 1.0, 31)


@given(
    report=st.builds(
        Report,
        epoch=COUNT,
        batches=COUNT,
        samples=COUNT,
        weight=NUMBER,
        compute_ms=NUMBER,
        loss_sum=NUMBER,
        loss_count=COUNT,
        relative_delta=NUMBER,
        is_drained=st.booleans(),
        should_stop=st.booleans(),
        stop=st.sampled_from(StopCause),
        needs_alignment=st.booleans(),
        gate_abort=st.sampled_from((0, 27)),
    )
)
def test_vector_round_trip_keeps_every_field(report: Report) -> None:
    """A report that travelled as numbers is equal, with counts and flags of their types."""
    received = Report.from_vector(report.to_vector())
    assert received == report
    assert (type(received.batches), type(received.is_drained)) == (int, bool)


@pytest.mark.parametrize(
    "vector",
    [[], Report().to_vector()[:-1], [*Report().to_vector(), 0.0], [1.0, *Report().to_vector()[1:]]],
    ids=["empty", "short", "long", "version"],
)
def test_vector_of_another_version_is_refused(vector: list[float]) -> None:
    """Ranks with different releases are told so."""
    with pytest.raises(ValueError, match="same release of lightning-elche"):
        Report.from_vector(vector)


def test_largest_code_and_lowest_rank_count_where_ranks_abort() -> None:
    """So that all ranks raise the same."""
    codes = (0, 25, 27, 27)
    assert abort_of([Report(gate_abort=code) for code in codes]) == (27, 2)
    assert abort_of([Report(), Report()]) is None


def test_event_that_all_can_restore_is_the_earliest() -> None:
    """Of the latest event of each; none where one rank has none."""
    reports = [Report(restorable_event=4), Report(restorable_event=3)]
    assert common_event(reports) == 3
    assert common_event([*reports, Report()]) == -1


def test_ranks_in_different_epochs_are_refused() -> None:
    """Their counts would be mixed up."""
    check_epochs([Report(epoch=1), Report(epoch=1)])
    with pytest.raises(RankMismatch, match=r"got \[1, 2\] by rank"):
        check_epochs([Report(epoch=1), Report(epoch=2)])


SPOILED = Report(sits_out=True)


@pytest.mark.parametrize(
    ("reports", "weights"),
    [
        ([Report(weight=3.0), SPOILED], [3.0, 0.0]),
        ([Report(), Report()], [0.0, 0.0]),
        ([Report(), SPOILED], [1.0, 0.0]),
        ([Report(), Report(stop=StopCause.FAILURE), SPOILED], [1.0, 0.0, 0.0]),
        ([SPOILED, SPOILED], [0.0, 0.0]),
    ],
)
def test_sound_ranks_have_a_say_where_nobody_has_learnt(
    reports: list[Report], weights: list[float]
) -> None:
    """So that spoiled ranks have something to adopt; else what was learnt is the weight."""
    assert weights_of(reports) == weights
