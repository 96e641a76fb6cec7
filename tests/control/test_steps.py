"""Crossings of one step count, and schedules by total work."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.control.steps import has_crossed, schedule_count


@pytest.mark.parametrize(
    ("before", "now", "crossed"),
    [(0, 99, False), (0, 100, True), (99, 101, True), (100, 199, False), (50, 1000, True)],
)
def test_multiple_is_crossed_between_two_events(before: int, now: int, crossed: bool) -> None:
    """A milestone counts if it lies after the first count and not after the second."""
    assert has_crossed(before, now, 100) is crossed


@pytest.mark.parametrize("every", [0, -1])
def test_nothing_is_crossed_without_a_period(every: int) -> None:
    """A period of zero means never."""
    assert not has_crossed(0, 1000, every)


@pytest.mark.parametrize(
    ("position", "frequency", "accumulate", "count"),
    [
        (10, 1, 1, 10),
        (10, 2, 1, 5),
        (9, 2, 1, 4),
        (10, 1, 4, 10),  # every optimizer step
        (10, 4, 4, 10),
        (10, 8, 4, 5),  # every second one
        (10, 3, 2, 3),  # batches 6, 12, 18: every third one
        (0, 1, 1, 0),
    ],
)
def test_schedule_counts_steps_at_common_multiples(
    position: int, frequency: int, accumulate: int, count: int
) -> None:
    """A schedule steps where its frequency and the end of an accumulation coincide."""
    assert schedule_count(position, frequency=frequency, accumulate=accumulate) == count


@given(
    jumps=st.lists(st.integers(min_value=1, max_value=50), max_size=40), every=st.integers(50, 99)
)
def test_crossings_are_neither_lost_nor_doubled_by_jumps(jumps: list[int], every: int) -> None:
    """However the count jumps by less than a period, each multiple is crossed once."""
    before, crossings = 0, 0
    for jump in jumps:
        crossings += has_crossed(before, before + jump, every)
        before += jump
    assert crossings == sum(jumps) // every


@given(
    position=st.integers(min_value=0, max_value=200),
    frequency=st.integers(min_value=1, max_value=12),
    accumulate=st.integers(min_value=1, max_value=12),
)
def test_schedule_count_equals_a_single_device(
    position: int, frequency: int, accumulate: int
) -> None:
    """The count is that of a loop over batches that steps as Lightning does."""
    batches = range(1, position * accumulate + 1)
    expected = sum(b % accumulate == 0 and b % frequency == 0 for b in batches)
    assert schedule_count(position, frequency=frequency, accumulate=accumulate) == expected


@pytest.mark.parametrize(
    ("position", "batches", "frequency", "accumulate", "count"),
    [(10, 10, 4, 1, 2), (13, 10, 4, 1, 2), (14, 10, 4, 1, 3), (6, 10, 1, 2, 5), (4, 10, 1, 2, 4)],
)
def test_schedule_counts_anew_in_the_next_epoch(
    position: int, batches: int, frequency: int, accumulate: int, count: int
) -> None:
    """Steps ahead count from the start of their epoch; short accumulations do not count."""
    due = schedule_count(position, batches=batches, frequency=frequency, accumulate=accumulate)
    assert due == count
