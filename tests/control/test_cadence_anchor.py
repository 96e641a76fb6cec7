"""The anchor of the cadence: how overhead, the guard and the link set it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.control.cadence import CadenceConfig, ElChe
from tests.control.cadences import calibrated, report


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
