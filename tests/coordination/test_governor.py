"""A controller against a simulated machine, and the sleeps that follow from it."""

from __future__ import annotations

import random
import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.coordination.host.governor import Duty, Governor, GovernorConfig
from lightning_elche.coordination.host.pid import Pid
from lightning_elche.coordination.host.targets import TargetConfig
from lightning_elche.coordination.registry.negotiate import negotiate

percents = st.floats(0.0, 100.0)


def settled_after(config: GovernorConfig, seed: int) -> int:
    """Periods until the machine stays within 8 points of 70 %, once 40 points are added."""
    draw = random.Random(seed)
    own, foreign = draw.uniform(60.0, 100.0), draw.uniform(0.0, 20.0)
    governor, inside_since = Governor(config), 0
    for period in range(-120, 60):
        load = foreign + (40.0 if period >= 0 else 0.0)
        used = own * governor.duty + load
        if period < 0 or abs(used - 70.0) > 8.0:
            inside_since = period + 1
        governor.update(min(100.0, used + draw.uniform(-2.0, 2.0)))
    return inside_since


def test_foreign_load_is_made_room_for_within_ten_periods() -> None:
    """In the median over 200 machines, and in at most twice that on any."""
    periods = [settled_after(GovernorConfig(), seed) for seed in range(200)]
    assert statistics.median(periods) <= 10
    assert max(periods) <= 20


def test_other_gains_settle_later() -> None:
    """So that the simulation can tell good gains from bad ones."""
    good = [settled_after(GovernorConfig(), seed) for seed in range(50)]
    bad = [settled_after(GovernorConfig(ki=0.05, kd=0.1), seed) for seed in range(50)]
    assert statistics.median(bad) >= 2 * statistics.median(good)


@given(st.lists(percents, max_size=60), st.floats(0.01, 1.0))
def test_duty_stays_between_its_limits(signal: list[float], duty_min: float) -> None:
    """Whatever the signal does."""
    governor = Governor(GovernorConfig(duty_min=duty_min))
    assert all(duty_min <= governor.update(percent) <= 1.0 for percent in signal)


@given(st.lists(st.tuples(percents, st.none() | st.floats(0.0, 1.0)), max_size=40))
def test_duty_never_exceeds_its_limit(seen: list[tuple[float, float | None]]) -> None:
    """At once, and whatever the signal does; `duty_min` is left in any case."""
    governor = Governor(GovernorConfig(duty_min=0.1))
    for percent, limit in seen:
        governor.limit = limit
        most = 1.0 if limit is None else max(limit, 0.1)
        assert 0.1 <= governor.duty <= most
        assert 0.1 <= governor.update(percent) <= most


def test_limit_is_not_worked_off_when_it_is_lifted() -> None:
    """The duty rises from where it was, and the sum of errors has not grown meanwhile."""
    governor = Governor()
    governor.limit = 0.4
    for _ in range(1000):
        governor.update(40.0)
    governor.limit = None
    assert governor.duty == 0.4
    assert governor.update(70.0) < 0.6


@pytest.mark.parametrize(
    ("signal", "limit", "percent", "requested"),
    [
        ("gpu", None, 95.0, 1.0),
        ("cpu", 0.4, 95.0, 1.0),
        ("power", None, 70.0, 1.0),
        ("power", 0.4, 70.0, 1.0),
        ("power", 0.4, 90.0, 0.375),  # 20 points less by half a point each, of which 1.25 times
        ("temperature", None, 72.0, 1.0),
    ],
)
def test_all_is_asked_for_unless_heat_or_power_forbid_it(
    signal: Any, limit: float | None, percent: float, requested: float
) -> None:
    """What others use as well is no reason to ask for less."""
    governor = Governor(GovernorConfig(signal=signal, kp=1.0 / 3.0, ki=0.0, ema=0.0))
    governor.limit = limit
    governor.update(percent)
    assert governor.requested == pytest.approx(requested)


def split(num_tasks: int, seed: int, headroom: float | None = None) -> list[float]:
    """Duties of tasks that split a machine, long after others have used half of it for a while.

    Args:
        num_tasks: Each of which alone would keep the machine busy.
        seed: Of noise, and of when they ask.
        headroom: What they ask for, relative to what they take. Default: as a governor says.
    """
    draw = random.Random(seed)
    tasks = [Governor() for _ in range(num_tasks)]
    begins = [100 * i + draw.randrange(30) for i in range(num_tasks)]
    asked: dict[int, float] = {}
    for period in range(900):
        active = [i for i in range(num_tasks) if period >= begins[i]]
        for i in active:
            if (period - begins[i]) % 30 == 0:
                own = tasks[i]
                asked[i] = own.requested if headroom is None else headroom * own.duty
                grants = negotiate([(one, 1.0) for one in asked.values()], 0.8)
                own.limit = dict(zip(asked, grants, strict=True))[i]
        used = 50.0 * (400 <= period < 500) + sum(100.0 * tasks[i].duty for i in active)
        for i in active:
            tasks[i].update(min(100.0, used + draw.uniform(-2.0, 2.0)))
    return [one.duty for one in tasks]


@pytest.mark.parametrize("num_tasks", [2, 3])
def test_tasks_that_split_a_machine_get_about_the_same(num_tasks: int) -> None:
    """At least two thirds of a fair part, and together what the machine should do."""
    for seed in range(10):
        duties = split(num_tasks, seed)
        assert min(duties) > 2.0 / 3.0 * 0.7 / num_tasks
        assert sum(duties) == pytest.approx(0.7, abs=0.05)


def test_tasks_that_asked_for_what_they_take_would_never_take_more() -> None:
    """Those who needed the machine are gone, and it is less than half in use."""
    assert all(sum(split(2, seed, headroom=1.0)) < 0.5 for seed in range(10))


def test_idle_machine_is_left_at_full_duty() -> None:
    """And the time in which there was nothing to do need not be worked off."""
    governor = Governor()
    for _ in range(1000):
        governor.update(10.0)
    assert governor.duty == 1.0
    assert [governor.update(100.0) for _ in range(3)][-1] < 0.85


@pytest.mark.parametrize(
    ("error", "expected"), [(4.0, 0.7 * 4.0), (5.0, 5.0), (15.0, 15.0), (16.0, 1.5 * 16.0)]
)
def test_gain_follows_the_size_of_the_error(error: float, expected: float) -> None:
    """Less close to the target, more far from it."""
    assert Pid(kp=1.0, ki=0.0, kd=0.0, ema=0.0).step(error) == pytest.approx(expected)


def test_sum_of_errors_is_limited() -> None:
    """To a hundred, so that it can be worked off."""
    pid = Pid(kp=0.0, ki=1.0, kd=0.0, ema=0.0)
    outputs = [pid.step(10.0) for _ in range(20)]
    assert outputs[-1] == 100.0


def test_sum_of_errors_stands_still_at_the_end_of_the_actuator() -> None:
    """Towards that end; away from it, it moves."""
    pid = Pid(kp=0.0, ki=1.0, kd=0.0, ema=0.0)
    assert [pid.step(10.0, saturated=1), pid.step(-10.0, saturated=1)] == [0.0, -10.0]


def test_change_of_the_error_counts_from_the_second_step_on() -> None:
    """There is none before."""
    pid = Pid(kp=0.0, ki=0.0, kd=1.0, ema=0.0)
    assert [pid.step(10.0), pid.step(16.0)] == [0.0, 9.0]


def test_output_is_smoothed() -> None:
    """A part of the last one stays."""
    pid = Pid(kp=1.0, ki=0.0, kd=0.0, ema=0.25)
    assert [pid.step(10.0), pid.step(10.0)] == [7.5, 9.375]


def test_governor_goes_on_from_its_state() -> None:
    """As if nothing had happened."""
    first, second = Governor(), Governor()
    for percent in (95.0, 90.0, 85.0):
        first.update(percent)
    second.load_state_dict(first.state_dict())
    assert second.update(80.0) == first.update(80.0)


@given(st.lists(st.tuples(st.floats(0.001, 5.0), st.floats(0.05, 1.0)), max_size=40))
def test_sleeps_are_short_and_never_more_than_owed(steps: list[tuple[float, float]]) -> None:
    """At most a second at once, in sum at most what the duties ask for."""
    duty = Duty()
    sleeps = [duty.sleep_s(step_s, part) for step_s, part in steps]
    assert all(0.0 <= sleep <= 1.0 for sleep in sleeps)
    assert sum(sleeps) <= sum(step * (1.0 / part - 1.0) for step, part in steps) + 1e-6


def test_sleeps_add_up_to_the_duty() -> None:
    """Where no step asks for more than a second: a quarter of the time is for work."""
    duty = Duty()
    assert sum(duty.sleep_s(0.1, 0.25) for _ in range(100)) == pytest.approx(30.0)


def test_sleep_that_is_owed_is_limited_and_forgotten_at_full_duty() -> None:
    """A rank that may work again does so at once."""
    duty = Duty()
    for _ in range(100):
        duty.sleep_s(2.0, 0.05)
    assert [duty.sleep_s(0.0, 0.5) for _ in range(12)] == [1.0] * 10 + [0.0] * 2
    duty.sleep_s(2.0, 0.05)
    assert [duty.sleep_s(0.1, 1.0), duty.sleep_s(0.1, 0.5)] == [0.0, pytest.approx(0.1)]


@pytest.mark.parametrize(
    ("percent", "action"),
    [(54.0, "scale_up"), (55.0, "hold"), (85.0, "hold"), (86.0, "scale_down")],
)
def test_number_of_jobs_follows_the_targets(percent: float, action: str) -> None:
    """More below 55 %, fewer above 85 %."""
    assert Governor().action(percent) == action


@pytest.mark.parametrize(
    ("option", "value", "rule"),
    [
        ("signal", "disk", "one of"),
        ("kp", -0.1, ">= 0"),
        ("ki", float("nan"), ">= 0"),
        ("period_s", 0.0, "> 0"),
        ("ema", 1.0, r"in \[0, 1\)"),
        ("duty_min", 0.0, r"in \(0, 1\]"),
    ],
)
def test_governor_refuses_options_out_of_range(option: str, value: object, rule: str) -> None:
    """The message names the option, the rule and the value."""
    with pytest.raises(ValueError, match=f"`{option}` must be {rule}.*, got {value!r}"):
        GovernorConfig(**{option: value})


def test_targets_must_rise() -> None:
    """The message names the one that does not, and the one before it."""
    with pytest.raises(ValueError, match=r"`max_pct` must be in \[70, 100\], got 65.0.*`optimal"):
        TargetConfig(max_pct=65.0)
