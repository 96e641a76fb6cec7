"""The step counts and shares of the cadence: how they follow the speeds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.control.cadence import CadenceConfig, ElChe
from tests.control.cadences import SPEEDS, STEP_MS, calibrated, report


def test_step_counts_follow_the_speeds_after_calibration() -> None:
    """A rank k times as fast as the slowest makes k times as many steps."""
    assert calibrated(17.0, 68.0).local_steps == (40, 10)


def test_shares_follow_the_speeds_after_calibration() -> None:
    """A rank's share is its part of the total throughput."""
    assert calibrated(10.0, 40.0).shares == (0.8, 0.2)


def test_window_lasts_as_long_as_the_steps_of_the_slowest() -> None:
    """The planned wall time is the anchor times the slowest rank's step."""
    assert calibrated(17.0, 68.0).anchor_wall_ms == 680.0


def test_slowest_is_the_lowest_rank_on_a_tie() -> None:
    """Equal ranks are anchored by the first of them."""
    assert calibrated(5.0, 20.0, 20.0).slowest == 1


@pytest.mark.parametrize(("slow_ms", "steps"), [(11.0, 100), (11.1, 111)])
def test_step_count_changes_only_beyond_the_dead_zone(slow_ms: float, steps: int) -> None:
    """A count within 10 % of the old one is kept, so that noise does not move it."""
    elche = calibrated(1.0, 10.0)
    elche._ms = [1.0, slow_ms]  # as smoothing would leave it in the end
    report(elche, 1.0, slow_ms)
    assert elche.local_steps == (steps, 10)


def test_dead_zone_does_not_apply_to_the_slowest() -> None:
    """The slowest rank makes exactly `anchor` steps, also after a change below 10 %."""
    elche = calibrated(10.0, 20.0, anchor=20, min_anchor=1)
    report(elche, 10.0, 20.0, transfer_ms=1.0)
    assert (elche.anchor, elche.local_steps) == (19, (40, 19))


def test_first_calibration_ignores_the_dead_zone() -> None:
    """The first measured counts are taken as they are."""
    assert calibrated(10.0, 10.5).local_steps == (10, 10)
    assert calibrated(10.0, 10.6).local_steps == (11, 10)


@pytest.mark.parametrize(("limit", "steps"), [(None, 100), (90, 100), (30, 40), (0, 10)])
def test_count_moves_at_most_by_the_limit(limit: int | None, steps: int) -> None:
    """One update changes a count by no more than `max_batch_diff`."""
    assert calibrated(10.0, 100.0, max_batch_diff=limit).local_steps[0] == steps


def test_count_falls_at_most_by_the_limit() -> None:
    """The limit holds downwards too."""
    elche = calibrated(10.0, 100.0, max_batch_diff=90)
    elche.config = CadenceConfig(max_batch_diff=7)
    elche._ms = [100.0, 100.0]
    report(elche, 100.0, 100.0)
    assert elche.local_steps[0] == 93


@pytest.mark.parametrize(
    ("ms", "total", "counts"),
    [
        ((10.0, 40.0), 50, (40, 10)),
        ((10.0, 40.0), 25, (20, 5)),
        ((10.0, 40.0), 52, (42, 10)),  # 41 + 10 and one left for the first rank
        ((10.0, 10.0, 10.0), 11, (4, 4, 3)),
        ((1.0, 1.0, 100.0), 3, (1, 1, 1)),
        ((1.0, 100.0, 100.0), 4, (2, 1, 1)),  # the floor of one comes out of the largest
    ],
)
def test_clamped_counts_sum_to_the_total(
    ms: tuple[float, ...], total: int, counts: tuple[int, ...]
) -> None:
    """Counts are scaled, each at least one, with the remainder for the first ranks."""
    assert calibrated(*ms).clamp_total(total) == counts


def test_clamped_total_is_refused_below_one_step_per_rank() -> None:
    """Fewer steps than ranks cannot be dealt."""
    with pytest.raises(ValueError, match="`total` must be >= 3"):
        ElChe(3).clamp_total(2)


@given(windows=st.lists(st.lists(STEP_MS, min_size=3, max_size=3), min_size=1, max_size=8))
def test_slowest_rank_makes_the_anchor_for_any_speeds(windows: list[list[float]]) -> None:
    """After calibration the slowest rank's count is the anchor, and every count at least one."""
    elche = ElChe(3)
    for window in windows:
        report(elche, *window, transfer_ms=window[0])
        assert elche.local_steps[elche.slowest] == elche.anchor
        assert min(elche.local_steps) >= 1


@given(ms=SPEEDS, data=st.data())
def test_clamped_counts_sum_to_any_total(ms: list[float], data: st.DataObject) -> None:
    """For any speeds and any total the counts sum to it, each at least one."""
    total = data.draw(st.integers(min_value=len(ms), max_value=10_000))
    counts = calibrated(*ms).clamp_total(total)
    assert sum(counts) == total
    assert min(counts) >= 1


@given(ms=SPEEDS)
def test_shares_sum_to_one_for_any_speeds(ms: list[float]) -> None:
    """Shares are positive parts of one."""
    shares = calibrated(*ms).shares
    assert sum(shares) == pytest.approx(1.0)
    assert min(shares) > 0.0


@given(ms=SPEEDS)
def test_planned_times_are_equal_for_any_speeds(ms: list[float]) -> None:
    """Every rank's steps take the window's wall time, up to half of one of its steps."""
    elche = calibrated(*ms)
    for value, steps in zip(elche.ms_per_batch, elche.local_steps, strict=True):
        assert abs(steps * value - elche.anchor_wall_ms) <= 0.5001 * value
