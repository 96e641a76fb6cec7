"""Runs that would last into peak hours."""

from __future__ import annotations

import pytest

from lightning_elche.callbacks.host_peak import PeakGuard
from lightning_elche.coordination.schedule.schedule import ScheduleConfig
from tests.callbacks.hosted import Events, alone

HOUR_S = 3600.0
PEAK = ["14:00", "22:00", "UTC"]


class Day:
    """A clock that sleeps."""

    def __init__(self, hour: float) -> None:
        self.now = hour * HOUR_S

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def begin(policy: str, *, hour: float, hours: float, stops: bool = False) -> float:
    """Begin a run, and return the hour at which it goes on."""
    day = Day(hour)
    config = ScheduleConfig(peak=PEAK, peak_policy=policy)  # type: ignore[arg-type]  # one of three
    guard = PeakGuard(config, now=day, sleep=day.sleep)
    guard.begin(alone(), hours * HOUR_S, stops=lambda: stops)
    return day.now / HOUR_S


@pytest.mark.parametrize(
    ("hour", "hours", "until"), [(10.0, 4.0, 10.0), (10.0, 5.0, 22.0), (21.0, 1.0, 22.0)]
)
def test_run_waits_if_it_would_last_into_peak_hours(
    hour: float, hours: float, until: float
) -> None:
    """Until they are over."""
    assert begin("wait", hour=hour, hours=hours) == pytest.approx(until)


def test_wait_ends_with_the_run() -> None:
    """A stop is not waited through."""
    assert begin("wait", hour=15.0, hours=1.0, stops=True) == 15.0


def test_run_that_lasts_into_peak_hours_is_warned(events: Events) -> None:
    """And begins at once; the event says when they end."""
    with pytest.warns(UserWarning, match="may take 5 hours and last into peak hours"):
        assert begin("warn", hour=10.0, hours=5.0) == 10.0
    assert events[-1][1]["until"] == 22 * HOUR_S


def test_run_that_is_throttled_then_begins_at_once() -> None:
    """The governor is on in these hours alone."""
    assert begin("throttle", hour=15.0, hours=1.0) == 15.0
