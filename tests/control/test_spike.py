"""What counts as a bad value, on both sides of each limit."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.control.spike import SpikeConfig, SpikeDetector


def after(*values: float, **options: float) -> SpikeDetector:
    """A detector that has seen healthy values, without a warm-up beyond them."""
    config = SpikeConfig(warmup_steps=len(values), **options)  # type: ignore[arg-type]
    detector = SpikeDetector(config)
    assert not any(detector.is_bad(value) for value in values)
    return detector


def test_factor_times_the_average_is_healthy() -> None:
    """The comparison is strict."""
    assert not after(2.0).is_bad(6.0)
    assert after(2.0).is_bad(math.nextafter(6.0, 7.0))


def test_average_near_zero_counts_as_the_floor() -> None:
    """A loss of 1e-9 may rise by twice the floor."""
    assert not after(1e-9, floor=0.5).is_bad(1.0)
    assert after(1e-9, floor=0.5).is_bad(1.1)


def test_negative_average_is_judged_by_its_distance() -> None:
    """From -2, a rise by 4 is healthy, and one beyond it is not."""
    assert not after(-2.0).is_bad(2.0)
    assert after(-2.0).is_bad(2.1)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_value_that_is_not_finite_is_bad_even_in_the_warm_up(value: float) -> None:
    """A first batch may be bad, too."""
    assert SpikeDetector().is_bad(value)


def test_spikes_are_not_looked_for_in_the_warm_up() -> None:
    """Until `warmup_steps` healthy values have come; what is not finite does not count."""
    detector = SpikeDetector(SpikeConfig(warmup_steps=2))
    values = [1.0, math.nan, 100.0, 1e6]
    assert [detector.is_bad(value) for value in values] == [False, True, False, True]


def test_first_value_is_the_average_and_later_ones_are_smoothed() -> None:
    """`m = ema * m + (1 - ema) * x`."""
    assert after(4.0, 2.0, ema=0.75).mean == 3.5


def test_bad_value_does_not_move_the_average() -> None:
    """However many there are."""
    detector = after(1.0)
    assert all(detector.is_bad(value) for value in (50.0, math.nan, 50.0))
    assert detector.mean == 1.0


def test_fall_is_healthy() -> None:
    """Only what rises is a spike."""
    assert not after(1e6).is_bad(-1e6)


@given(st.lists(st.floats(min_value=0.5, max_value=1.4), min_size=1, max_size=50))
def test_values_within_the_factor_of_each_other_are_healthy(values: list[float]) -> None:
    """An average lies between its values."""
    detector = SpikeDetector(SpikeConfig(warmup_steps=1))
    assert not any(detector.is_bad(value) for value in values)


def test_state_continues_the_history() -> None:
    """Another detector with the state decides the same."""
    draw = random.Random(5).uniform
    first, second = SpikeDetector(), SpikeDetector()
    for _ in range(20):
        first.is_bad(draw(0.0, 5.0))
    second.load_state_dict(first.state_dict())
    values = [draw(0.0, 50.0) for _ in range(20)]
    assert [first.is_bad(value) for value in values] == [second.is_bad(value) for value in values]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"monitor": ""}, "`monitor` must be a key"),
        ({"factor": 1.0}, "`factor` must be a number > 1, got 1.0"),
        ({"factor": math.inf}, "`factor` must be a number > 1, got inf"),
        ({"ema": 1.0}, r"`ema` must be in \[0, 1\), got 1.0"),
        ({"warmup_steps": 0}, "`warmup_steps` must be >= 1, got 0"),
        ({"floor": 0.0}, "`floor` must be a number > 0, got 0.0"),
        ({"check_every": 0}, "`check_every` must be >= 1, got 0"),
    ],
)
def test_bad_options_are_refused(option: dict[str, float], message: str) -> None:
    """The message names the parameter and the value."""
    with pytest.raises(ValueError, match=message):
        SpikeConfig(**option)  # type: ignore[arg-type]


def test_detector_shows_its_average() -> None:
    """For logs and debuggers."""
    detector = SpikeDetector()
    detector.is_bad(2.5)
    assert repr(detector) == "SpikeDetector(mean=2.5, num_healthy=1)"
