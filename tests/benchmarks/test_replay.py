"""Tests of the benchmark of replay, on a small model."""

from __future__ import annotations

from replay import Blocks, median_ms, operations, point


def test_a_full_point_has_the_moments_of_all_parameters() -> None:
    """AdamW keeps three tensors for each, so that a state is about three models."""
    model = Blocks(16, 1)
    model.step()
    full, own = (len(point(model, is_full=is_full).layout) for is_full in (True, False))
    assert full == 4 * own


def test_times_are_positive() -> None:
    """Of everything that is compared, of a state whose size is told."""
    num_bytes, timed = operations(16, 1)
    assert num_bytes > 30_000
    assert min(median_ms(timed, 1).values()) > 0.0
