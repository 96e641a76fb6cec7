"""The controller of the cadence: measured speeds, the anchor, and the step counts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.control.cadence import CadenceConfig, ElChe

STEP_MS = st.floats(min_value=0.1, max_value=10_000.0)
SPEEDS = st.lists(STEP_MS, min_size=2, max_size=9)


def calibrated(*ms: float, **options: Any) -> ElChe:
    """Return a controller, target 10 %, that has seen one window of 10 steps on each rank."""
    elche = ElChe(len(ms), CadenceConfig(**{"overhead_target": 0.10, **options}))
    elche.report(compute_ms=[10.0 * value for value in ms], steps=[10] * len(ms), transfer_ms=0.0)
    return elche


def report(elche: ElChe, *ms: float, transfer_ms: float = 0.0, hold: bool = False) -> None:
    """Report one more window of 10 steps on each rank."""
    compute_ms = [10.0 * value for value in ms]
    elche.report(compute_ms=compute_ms, steps=[10] * len(ms), transfer_ms=transfer_ms, hold=hold)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"anchor": 0}, "anchor"),
        ({"anchor": 10, "min_anchor": 11}, "min_anchor"),
        ({"anchor": 10, "min_anchor": 0}, "min_anchor"),
        ({"anchor": 10, "max_anchor": 9}, "max_anchor"),
        ({"max_batch_diff": -1}, "max_batch_diff"),
        ({"overhead_target": float("nan")}, "overhead_target"),
        ({"speed_hint": {0: 0.0}}, "speed_hint"),
        ({"speed_hint": {0: float("inf")}}, "speed_hint"),
        ({"speed_hint": {-1: 1.0}}, "speed_hint"),
    ],
)
def test_config_is_refused_with_the_name_of_a_bad_value(
    options: dict[str, Any], named: str
) -> None:
    """A value outside its range raises an error that names the parameter."""
    with pytest.raises(ValueError, match=f"`{named}`"):
        CadenceConfig(**options)


@pytest.mark.parametrize(
    ("given_target", "used"), [(0.0, 0.01), (0.01, 0.01), (0.2, 0.2), (0.5, 0.5), (0.9, 0.5)]
)
def test_overhead_target_is_clamped_outside_its_range(given_target: float, used: float) -> None:
    """The overhead target lies in [0.01, 0.50] whatever was asked for."""
    assert CadenceConfig(overhead_target=given_target).overhead_target == used


def test_lowest_anchor_is_the_anchor_without_a_minimum() -> None:
    """Without `min_anchor` the anchor never shrinks below where it began."""
    assert CadenceConfig(anchor=7).lowest_anchor == 7
    assert CadenceConfig(anchor=7, min_anchor=2).lowest_anchor == 2


@pytest.mark.parametrize("world_size", [0, 1])
def test_controller_is_refused_below_two_ranks(world_size: int) -> None:
    """One rank has nobody to average with."""
    with pytest.raises(ValueError, match="`world_size` must be >= 2"):
        ElChe(world_size)


def test_hint_is_refused_beyond_the_last_rank() -> None:
    """A hint for a rank that does not exist is an error."""
    with pytest.raises(ValueError, match="got rank 2"):
        ElChe(2, CadenceConfig(speed_hint={2: 1.5}))


def test_step_counts_are_equal_before_calibration() -> None:
    """Without a hint every rank starts with the anchor."""
    elche = ElChe(3)
    assert elche.local_steps == (10, 10, 10)
    assert (elche.is_calibrated, elche.anchor_wall_ms) == (False, 0.0)


def test_shares_are_equal_before_calibration() -> None:
    """Unknown speeds count as equal."""
    assert ElChe(4).shares == (0.25, 0.25, 0.25, 0.25)


def test_hint_sets_step_counts_before_calibration() -> None:
    """A rank said to be 2.3x slower gets the anchor, an unnamed one 2.3x as many steps."""
    elche = ElChe(2, CadenceConfig(speed_hint={1: 2.3}))
    assert elche.local_steps == (23, 10)
    assert elche.shares == (23 / 33, 10 / 33)


def test_measured_speed_replaces_the_hint() -> None:
    """After the first window only measurements count."""
    assert calibrated(10.0, 10.0, speed_hint={1: 4.0}).local_steps == (10, 10)


def test_first_report_is_taken_raw() -> None:
    """The first measurement of a rank is its compute time over its own steps."""
    elche = ElChe(2)
    elche.report(compute_ms=[170.0, 680.0], steps=[10, 5], transfer_ms=0.0)
    assert elche.ms_per_batch == (17.0, 136.0)


@pytest.mark.parametrize(
    ("new", "smoothed"),
    [
        (100.0, 100.0),
        (105.0, 100.5),  # a change of 5 % has weight 0.1
        (130.0, 109.0),  # 30 % has 0.3
        (200.0, 180.0),  # 100 % has 0.8
        (50.0, 75.0),  # -50 % has 0.5
    ],
)
def test_later_reports_are_smoothed_by_their_change(new: float, smoothed: float) -> None:
    """The weight of a measurement is its relative change, between 0.1 and 0.8."""
    elche = calibrated(100.0, 100.0)
    report(elche, new, 100.0)
    assert elche.ms_per_batch[0] == pytest.approx(smoothed)


@pytest.mark.parametrize(("compute_ms", "steps"), [(0.0, 0), (50.0, 0), (0.0, 5), (-1.0, 5)])
def test_speed_is_kept_without_a_measurement(compute_ms: float, steps: int) -> None:
    """A rank that made no step, or took no time, keeps its value."""
    elche = calibrated(10.0, 40.0)
    elche.report(compute_ms=[100.0, compute_ms], steps=[10, steps], transfer_ms=0.0)
    assert elche.ms_per_batch == (10.0, 40.0)


def test_calibration_needs_every_rank() -> None:
    """One rank that was never measured keeps the controller uncalibrated."""
    elche = ElChe(2)
    elche.report(compute_ms=[100.0, 0.0], steps=[10, 0], transfer_ms=0.0)
    assert (elche.is_calibrated, elche.local_steps) == (False, (10, 10))
    elche.report(compute_ms=[100.0, 400.0], steps=[10, 10], transfer_ms=0.0)
    assert (elche.is_calibrated, elche.local_steps) == (True, (40, 10))


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


@pytest.mark.parametrize(
    ("transfer_ms", "anchor"),
    [
        (9.9, 10),  # 9.9 % of 100 ms: below the target of 10 %
        (10.0, 10),  # at the target
        (10.1, 11),  # ceil(10 * 0.101 / 0.10)
        (25.0, 25),
        (5000.0, 200),  # the most
    ],
)
def test_anchor_grows_to_where_overhead_meets_its_target(transfer_ms: float, anchor: int) -> None:
    """Above the target the anchor jumps in proportion, up to its maximum."""
    elche = calibrated(10.0, 10.0)
    report(elche, 10.0, 10.0, transfer_ms=transfer_ms)
    assert elche.anchor == anchor


@pytest.mark.parametrize(("transfer_ms", "anchor"), [(4.9, 9), (5.0, 10), (9.0, 10), (0.0, 10)])
def test_anchor_shrinks_by_one_below_half_the_target(transfer_ms: float, anchor: int) -> None:
    """Below half the target the anchor creeps down; an unknown cost changes nothing."""
    elche = calibrated(10.0, 10.0, min_anchor=1)
    report(elche, 10.0, 10.0, transfer_ms=transfer_ms)
    assert elche.anchor == anchor


def test_anchor_does_not_shrink_below_its_minimum() -> None:
    """A cheap exchange lowers the anchor to `min_anchor` and no further."""
    elche = calibrated(10.0, 10.0, min_anchor=9)
    for _ in range(3):
        report(elche, 10.0, 10.0, transfer_ms=1.0)
    assert elche.anchor == 9


def test_anchor_is_tuned_by_the_longest_compute_time() -> None:
    """Overhead is the transfer over the time of the rank that computed longest."""
    elche = calibrated(10.0, 40.0)
    report(elche, 10.0, 40.0, transfer_ms=40.0)  # 10 % of 400 ms, 40 % of 100 ms
    assert elche.anchor == 10


def test_hold_forbids_the_anchor_to_grow() -> None:
    """While the guard holds, an expensive exchange does not lengthen the window."""
    elche = calibrated(10.0, 10.0)
    report(elche, 10.0, 10.0, transfer_ms=50.0, hold=True)
    assert elche.anchor == 10


def test_hold_lets_the_anchor_shrink() -> None:
    """While the guard holds, a cheap exchange still shortens the window."""
    elche = calibrated(10.0, 10.0, min_anchor=1)
    report(elche, 10.0, 10.0, transfer_ms=1.0, hold=True)
    assert elche.anchor == 9


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
    ("factor", "anchor"), [(0.5, 5), (0.45, 5), (0.1, 1), (0.0, 1), (1.0, 10), (3.0, 10)]
)
def test_tighten_shortens_the_window_to_a_part(factor: float, anchor: int) -> None:
    """The factor is clamped to [0.1, 1], the result rounded up; it never loosens."""
    elche = calibrated(10.0, 40.0)
    elche.tighten(factor)
    assert (elche.anchor, elche.local_steps) == (anchor, (4 * anchor, anchor))


def test_tighten_goes_below_the_minimum_down_to_one() -> None:
    """The guard may force a step count that tuning may not reach."""
    elche = calibrated(10.0, 10.0, min_anchor=10)
    for _ in range(9):
        elche.tighten(0.5)
    assert elche.anchor == 1


def test_tighten_limits_step_counts_before_calibration() -> None:
    """Without measurements no rank makes more steps than the tightened anchor."""
    elche = ElChe(2, CadenceConfig(speed_hint={1: 2.0}))
    elche.tighten(0.5)
    assert elche.local_steps == (5, 5)


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


def test_state_is_ignored_from_another_number_of_ranks() -> None:
    """Measurements of two ranks say nothing about three."""
    elche = ElChe(3)
    elche.load_state_dict(calibrated(10.0, 40.0).state_dict())
    assert (elche.is_calibrated, elche.local_steps) == (False, (10, 10, 10))


def test_reset_forgets_measurements() -> None:
    """After a reset the controller is as new."""
    elche = calibrated(10.0, 40.0)
    elche.reset()
    assert elche.state_dict() == ElChe(2).state_dict()


def test_repr_shows_what_matters() -> None:
    """The text names anchor, step counts and speeds."""
    expected = "ElChe(anchor=10, local_steps=(40, 10), ms_per_batch=[17, 68])"
    assert repr(calibrated(17.0, 68.0)) == expected


@given(windows=st.lists(st.tuples(STEP_MS, STEP_MS, STEP_MS), min_size=1, max_size=8))
def test_state_round_trip_continues_identically(windows: list[tuple[float, ...]]) -> None:
    """A controller restored through JSON decides as the one that went on."""
    original = calibrated(1.0, 2.0, 3.0)
    restored = ElChe(3, original.config)
    restored.load_state_dict(json.loads(json.dumps(original.state_dict())))
    for window in windows:
        for elche in (original, restored):
            report(elche, *window, transfer_ms=window[0])
    assert restored.state_dict() == original.state_dict()


@given(windows=st.lists(st.lists(STEP_MS, min_size=3, max_size=3), min_size=1, max_size=8))
def test_slowest_rank_makes_the_anchor_for_any_speeds(windows: list[list[float]]) -> None:
    """After calibration the slowest rank's count is the anchor, and every count at least one."""
    elche = ElChe(3)
    for window in windows:
        report(elche, *window, transfer_ms=window[0])
        assert elche.local_steps[elche.slowest] == elche.anchor
        assert min(elche.local_steps) >= 1


@given(
    transfers=st.lists(st.floats(min_value=0.0, max_value=1e6), max_size=30),
    anchor=st.integers(min_value=5, max_value=50),
)
def test_anchor_stays_within_its_limits_for_any_cost(transfers: list[float], anchor: int) -> None:
    """Tuning never leaves [`min_anchor`, `max_anchor`]."""
    elche = calibrated(10.0, 30.0, anchor=anchor, min_anchor=5, max_anchor=50)
    for transfer_ms in transfers:
        report(elche, 10.0, 30.0, transfer_ms=transfer_ms)
        assert 5 <= elche.anchor <= 50


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


def test_window_is_lengthened_to_a_duration() -> None:
    """Of the slowest rank; never shortened, and not beyond `max_anchor`."""
    elche = calibrated(10.0, 40.0, max_anchor=50)
    for window_ms, anchor in ((200.0, 10), (790.0, 20), (90_000.0, 50)):
        elche.lengthen(window_ms)
        assert elche.anchor == anchor
        assert elche.local_steps == (4 * anchor, anchor)


def test_window_of_unknown_speeds_is_not_lengthened() -> None:
    """Nobody knows how many steps that would be."""
    elche = ElChe(2)
    before = elche.anchor
    elche.lengthen(90_000.0)
    assert elche.anchor == before
