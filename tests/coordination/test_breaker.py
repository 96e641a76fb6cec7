"""Starts that fail, and when they are let through again."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import pybreaker
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.coordination.breaker import (
    Breaker,
    BreakerConfig,
    BreakerRecord,
    BreakerState,
)

CLOSED, HALF_OPEN, OPEN = BreakerState.CLOSED, BreakerState.HALF_OPEN, BreakerState.OPEN
THREE = BreakerConfig(failures=3, recovery_s=30.0, jitter=0.0, backoff=2.0)


def failed(breaker: Breaker, *failures_s: float) -> Breaker:
    for now_s in failures_s:
        breaker.fail(now_s)
    return breaker


@pytest.mark.parametrize(
    ("failures_s", "now_s", "state"),
    [
        ((), 0.0, CLOSED),
        ((1.0, 2.0), 3.0, CLOSED),
        ((1.0, 2.0, 3.0), 3.0, OPEN),
        ((1.0, 2.0, 3.0), 32.999, OPEN),
        ((1.0, 2.0, 3.0), 33.0, HALF_OPEN),
        ((1.0, 2.0, 3.0, 40.0), 99.999, OPEN),  # for twice as long
        ((1.0, 2.0, 3.0, 40.0), 100.0, HALF_OPEN),
        ((1.0, 2.0, 3.0, 20.0), 33.0, HALF_OPEN),  # began before it opened
    ],
)
def test_breaker_opens_after_three_failures(
    failures_s: tuple[float, ...], now_s: float, state: BreakerState
) -> None:
    """One failure in half-open opens it again."""
    assert failed(Breaker(THREE), *failures_s).state(now_s) == state


def test_success_forgets_the_failures() -> None:
    """Three more are needed to open it."""
    breaker = failed(Breaker(THREE), 1.0, 2.0)
    breaker.succeed(3.0)
    assert failed(breaker, 4.0, 5.0).state(5.0) == CLOSED
    assert failed(breaker, 6.0).state(6.0) == OPEN


def test_as_many_successes_as_tries_close_it() -> None:
    """The third, not the second."""
    breaker = failed(Breaker(THREE), 1.0, 2.0, 3.0)
    states = []
    for now_s in (40.0, 41.0, 42.0):
        breaker.begin(now_s, str(now_s))
        breaker.succeed(now_s + 0.5, str(now_s))
        states.append(breaker.state(now_s + 0.5))
    assert states == [HALF_OPEN, HALF_OPEN, CLOSED]


def test_no_more_tries_than_allowed_at_once() -> None:
    """The fourth waits until the first has ended, or took too long."""
    breaker = failed(Breaker(THREE), 1.0, 2.0, 3.0)
    for now_s in (40.0, 41.0, 42.0):
        assert breaker.wait_s(now_s) == 0.0
        breaker.begin(now_s, str(now_s))
    assert breaker.wait_s(43.0) == 597.0
    breaker.drop(44.0, "41.0")
    assert breaker.wait_s(44.0) == 0.0


def test_try_that_never_ends_has_failed() -> None:
    """It opens the breaker again at the moment when its time was up."""
    breaker = failed(Breaker(THREE), 1.0, 2.0, 3.0)
    breaker.begin(40.0, "a")
    assert breaker.state(640.0) == OPEN
    assert breaker.wait_s(650.0) == 50.0


def test_late_look_sees_what_would_have_been() -> None:
    """A try that took too long opened it long ago, so that it is half-open by now."""
    breaker = failed(Breaker(THREE), 1.0, 2.0, 3.0)
    breaker.begin(40.0, "a")
    assert breaker.state(5000.0) == HALF_OPEN


def test_time_open_grows_up_to_its_limit() -> None:
    """Twice as long each time."""
    config = BreakerConfig(failures=1, recovery_s=300.0, jitter=0.0)
    breaker, now_s, waits = Breaker(config), 0.0, []
    for _ in range(6):
        breaker.fail(now_s)
        waits.append(breaker.wait_s(now_s))
        now_s += waits[-1]
    assert waits == [300.0, 600.0, 1200.0, 2400.0, 3600.0, 3600.0]


@pytest.mark.parametrize(("draw", "wait_s"), [(0.0, 270.0), (0.5, 300.0), (1.0, 330.0)])
def test_jitter_spreads_the_time_open(draw: float, wait_s: float) -> None:
    """By a tenth, either way."""
    breaker = Breaker(BreakerConfig(failures=1), draw=lambda: draw)
    breaker.fail(0.0)
    assert breaker.wait_s(0.0) == pytest.approx(wait_s)


def test_opening_is_forgiven_after_half_an_hour_closed() -> None:
    """One for each half-hour."""
    record = BreakerRecord(opens=3, closed_s=0.0)
    breaker = Breaker(THREE, record=record)
    opens = []
    for now_s in (1799.0, 1800.0, 3600.0, 9000.0):
        breaker.state(now_s)
        opens.append(breaker.record.opens)
    assert opens == [3, 2, 1, 0]


def test_reset_forgets_all() -> None:
    """Openings, too."""
    breaker = failed(Breaker(THREE), 1.0, 2.0, 3.0)
    breaker.reset(4.0)
    assert breaker.record == BreakerRecord(closed_s=4.0)


class Clock:
    """Stands in for `datetime` in pybreaker."""

    now_s = 0.0

    @classmethod
    def now(cls, _: Any) -> datetime:
        return datetime(2026, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=cls.now_s)


def outcome_of(is_success: bool) -> None:
    if not is_success:
        raise ArithmeticError


@given(
    steps=st.lists(st.tuples(st.booleans(), st.integers(0, 40)), max_size=60),
    failures=st.integers(1, 4),
    successes=st.integers(1, 3),
)
def test_histories_are_those_of_pybreaker(
    steps: list[tuple[bool, int]], failures: int, successes: int
) -> None:
    """One call at a time, always the same time open: the same calls are let through."""
    config = BreakerConfig(
        failures=failures, recovery_s=30.0, backoff=1.0, jitter=0.0, half_open_max=successes
    )
    ours, now_s = Breaker(config), 0.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pybreaker, "datetime", Clock)
        theirs = pybreaker.CircuitBreaker(
            fail_max=failures,
            reset_timeout=30,
            success_threshold=successes,
            throw_new_error_on_trip=False,
        )
        for is_success, pause_s in steps:
            now_s += pause_s
            Clock.now_s = now_s
            is_let_through = ours.wait_s(now_s) == 0.0
            try:
                theirs.call(outcome_of, is_success)
                was_let_through = True
            except ArithmeticError:
                was_let_through = True
            except pybreaker.CircuitBreakerError:
                was_let_through = False
            assert is_let_through == was_let_through
            if is_let_through:
                (ours.succeed if is_success else ours.fail)(now_s)


@given(
    st.lists(st.tuples(st.booleans(), st.floats(0.0, 40.0)), min_size=1, max_size=40),
)
def test_breaker_never_lets_more_fail_than_its_rule(steps: list[tuple[bool, float]]) -> None:
    """Of failures without a success between them, those after the third are 30 s apart."""
    breaker, now_s, tried_s = Breaker(THREE), 0.0, list[float]()
    for is_success, pause_s in steps:
        now_s += pause_s
        if breaker.wait_s(now_s) > 0.0:
            continue
        if is_success:
            breaker.succeed(now_s)
            tried_s = []
        else:
            breaker.fail(now_s)
            tried_s.append(now_s)
    late = tried_s[2:]
    assert all(after - before >= 30.0 - 1e-9 for before, after in pairwise(late))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("failures", 0),
        ("recovery_s", 0.0),
        ("backoff", 0.5),
        ("max_recovery_s", 10.0),
        ("jitter", 1.0),
        ("half_open_max", 0),
        ("half_open_timeout_s", float("nan")),
    ],
)
def test_option_out_of_range_is_refused(option: str, value: float) -> None:
    """The message names it."""
    with pytest.raises(ValueError, match=f"`{option}` must be .* got {value:g}"):
        BreakerConfig(**{option: value})
