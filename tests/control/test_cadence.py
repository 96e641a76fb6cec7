"""The controller of the cadence: its options, measured speeds, and its state."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.control.cadence import CadenceConfig, ElChe
from tests.control.cadences import STEP_MS, calibrated, report


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
