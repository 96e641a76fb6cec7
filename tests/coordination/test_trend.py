"""Lines through noisy samples."""

from __future__ import annotations

import random

import pytest

from lightning_elche.coordination.host.trend import Trend


def filled(trend: Trend, count: int, *, slope: float, noise: float, seed: int = 1) -> Trend:
    draw = random.Random(seed)
    for second in range(count):
        trend.add(float(second), 10_000.0 + slope * second + draw.uniform(-noise, noise))
    return trend


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("slope", [-1.0, -5.0, -20.0])
def test_time_to_zero_is_right_within_a_tenth(slope: float, seed: int) -> None:
    """Two minutes after it began, with noise of 20 seconds of it."""
    trend = filled(Trend(), 120, slope=slope, noise=-20.0 * slope, seed=seed)
    left = trend.time_to_zero_s()
    assert left == pytest.approx((10_000.0 + slope * 119) / -slope, rel=0.1)


def test_no_slope_is_told_of_noise() -> None:
    """Where no line explains the samples there is none."""
    told = [filled(Trend(), 300, slope=0.0, noise=50.0, seed=seed).slope() for seed in range(50)]
    assert told.count(None) >= 48


def test_no_slope_is_told_of_few_samples() -> None:
    """Ten settled ones are needed, and ten before they have settled."""
    assert filled(Trend(), 19, slope=-1.0, noise=0.0).slope() is None
    assert filled(Trend(), 20, slope=-1.0, noise=0.0).slope() == pytest.approx(-1.0, abs=0.1)


def test_growth_has_no_end() -> None:
    """What grows is never used up."""
    assert filled(Trend(), 100, slope=3.0, noise=0.0).time_to_zero_s() is None


def test_samples_are_forgotten_after_the_window() -> None:
    """A change of direction shows once the window holds nothing else."""
    trend = filled(Trend(window_s=60.0), 100, slope=-50.0, noise=0.0)
    for second in range(100, 200):
        trend.add(float(second), 5000.0 + second)
    assert trend.slope() == pytest.approx(1.0, abs=0.1)
