"""Ranges of batches, and what is left beside them."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.data.epoch_progress import indices_of, ranges_of, without

INDICES = st.sets(st.integers(min_value=0, max_value=60))


@given(INDICES)
def test_ranges_hold_exactly_the_indices(indices: set[int]) -> None:
    """Sorted, not empty, and no two that touch."""
    ranges = ranges_of(indices)
    assert indices_of(ranges) == indices
    assert all(start < stop for start, stop in ranges)
    assert all(one[1] < other[0] for one, other in pairwise(ranges))


@given(INDICES, st.integers(min_value=0, max_value=61))
def test_what_is_left_and_what_was_trained_make_the_whole(indices: set[int], total: int) -> None:
    """Each number below the total is in one of the two."""
    left = without(total, indices)
    assert sorted({*left, *(index for index in indices if index < total)}) == list(range(total))
    assert not indices & set(left)
