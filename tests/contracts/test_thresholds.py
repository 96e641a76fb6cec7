"""Tests of statistics within bounds."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.contracts.gates.thresholds import Window, checks_over_epochs, checks_over_steps
from lightning_elche.contracts.model import Gate, ThresholdCheck
from lightning_elche.contracts.verdicts import Verdict
from tests.contracts.sample_runs import contract_of

STATS = ("min", "max", "mean", "median", "p95", "last")
VALUES = [4.0, 1.0, 3.0, 2.0]
singles = st.floats(width=32, min_value=-1000.0, max_value=1000.0)


def _window(values: list[float], stat: str = "mean", **options: object) -> Window:
    window = Window(ThresholdCheck(metric="wall_ms", stat=stat, **options))  # type: ignore[arg-type]
    for index, value in enumerate(values):
        window.add(index, value)
    return window


def _verdict(values: list[float], **options: object) -> Verdict:
    return _window(values, **options).result("G").verdict  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("stat", "expected"),
    [("min", 1.0), ("max", 4.0), ("mean", 2.5), ("median", 2.5), ("p95", 4.0), ("last", 2.0)],
)
def test_statistic_is_the_one_asked_for(stat: str, expected: float) -> None:
    """Each statistic is what its name says; the last value is the latest, not the largest."""
    assert _window(VALUES, stat).statistic() == expected


@pytest.mark.parametrize(("count", "expected"), [(19, 19.0), (20, 19.0), (21, 20.0), (100, 95.0)])
def test_p95_is_a_value_below_which_95_percent_lie(count: int, expected: float) -> None:
    """The 95th percentile is the smallest value that 95 % do not exceed."""
    assert _window([float(value) for value in range(1, count + 1)], "p95").statistic() == expected


@pytest.mark.parametrize("stat", STATS)
def test_bounds_are_inclusive(stat: str) -> None:
    """A statistic at a bound passes, and a neighbour beyond it fails."""
    assert _verdict([5.0], stat=stat, min=5.0, max=5.0) is Verdict.PASS
    assert _verdict([5.0], stat=stat, min=5.000001) is Verdict.FAIL
    assert _verdict([5.0], stat=stat, max=4.999999) is Verdict.FAIL


def test_bound_is_compared_in_32_bits() -> None:
    """A value that 32 bits hold differently from its decimal is compared with the bound as such."""
    assert _verdict([0.10000000149011612], max=0.1) is Verdict.PASS


def test_failure_tells_statistic_and_bound() -> None:
    """The reason names metric, statistic, value, bound and count."""
    reason = _window([5.0, 6.0], max=4.0).result("G").reason
    assert reason == "mean of wall_ms = 5.5 over 2 values, above 4"
    assert _window([5.0], min=7.0).result("G").reason.endswith("over 1 values, below 7")


def test_range_is_half_open() -> None:
    """Values before and at the end of the range do not count."""
    window = _window([9.0, 1.0, 2.0, 9.0], steps=(1, 3))
    assert (window.count, window.statistic()) == (2, 1.5)


@pytest.mark.parametrize("values", [[], [1.0, 2.0]])
def test_empty_window_is_indeterminate(values: list[float]) -> None:
    """A range that no step has reached proves nothing."""
    result = _window(values, steps=(20, 50), max=1e9).result("G")
    assert (result.verdict, result.reason) == (
        Verdict.INDETERMINATE,
        "0 values of wall_ms, 0 absent",
    )


def test_window_with_an_absent_value_is_indeterminate() -> None:
    """A step without the metric leaves the statistic unknown, but only within the range."""
    window = _window([1.0], steps=(0, 2), max=5.0)
    window.add(2, None)
    assert window.result("G").verdict is Verdict.PASS
    window.add(1, None)
    assert window.result("G").verdict is Verdict.INDETERMINATE


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e39])
@pytest.mark.parametrize("stat", STATS)
def test_value_that_is_not_finite_fails(stat: str, value: float) -> None:
    """A value that is not finite fails whatever the statistic is of the others."""
    assert _verdict([1.0, value, 1.0], stat=stat, max=math.inf) is Verdict.FAIL


@given(st.lists(singles, min_size=1, max_size=30), st.sampled_from(STATS), st.booleans())
def test_many_values_at_once_are_the_same_as_one_by_one(
    values: list[float], stat: str, is_ranged: bool
) -> None:
    """Adding values of rising steps at once gives the statistic of adding them one by one."""
    steps = (3, 12) if is_ranged else None
    one_by_one, at_once = _window(values, stat, steps=steps), _window([], stat, steps=steps)
    at_once.add_rising(range(len(values)), values)
    assert at_once.count == one_by_one.count
    assert (at_once.statistic() or 0.0) == pytest.approx(one_by_one.statistic() or 0.0, abs=1e-9)


def test_many_absent_values_are_the_same_as_one_by_one() -> None:
    """A metric that no step has is absent in each step of the range."""
    window = _window([], steps=(3, 12))
    window.add_rising(range(5), None)
    assert window.result("G").reason == "0 values of wall_ms, 2 absent"


@given(st.lists(singles | st.just(math.nan), max_size=20), st.sampled_from(STATS))
def test_window_goes_on_from_its_state(values: list[float], stat: str) -> None:
    """A window restored from JSON comes to the same result."""
    window, other = _window(values, stat, max=3.0), _window([], stat, max=3.0)
    window.add(99, None)
    other.load_state_dict(json.loads(json.dumps(window.state_dict(), allow_nan=False)))
    assert other.result("G") == window.result("G")


def test_checks_are_told_apart_by_their_range() -> None:
    """A check with epochs is over epochs, any other over steps; built-in gates have none."""
    over_steps = ThresholdCheck(metric="wall_ms", stat="max", max=1.0)
    over_epochs = ThresholdCheck(metric="val_loss", stat="last", epochs=(0, 9), max=1.0)
    checks = {"G-1": over_steps, "G-2": over_epochs, "GATE-TRAIN-005": over_steps, "G-3": None}
    gates = tuple(Gate(id=name, check=check) for name, check in checks.items())
    assert [*checks_over_steps(contract_of(gates=gates))] == [("G-1", over_steps)]
    assert [*checks_over_epochs(contract_of(gates=gates))] == [("G-2", over_epochs)]
