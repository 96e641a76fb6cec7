"""Levels that do not flicker."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.coordination.host.levels import Level, LevelWatch

OK, WARN, CRITICAL = Level.OK, Level.WARN, Level.CRITICAL


def watch() -> LevelWatch:
    return LevelWatch(warn=85.0, critical=95.0, hysteresis=3.0, samples=3)


def levels_of(*values: float) -> list[Level]:
    own = watch()
    return [own.add(value) for value in values]


@pytest.mark.parametrize(
    ("values", "level"),
    [
        ((86.0, 86.0), OK),
        ((86.0, 86.0, 86.0), WARN),
        ((86.0, 86.0, 84.0, 86.0, 86.0), OK),  # not in a row
        ((85.0,) * 9, OK),  # at the limit, not over it
        ((96.0,) * 3, CRITICAL),
        ((96.0, 86.0, 96.0), WARN),  # as far as all three ask for
        ((86.0,) * 3 + (83.0,) * 9, WARN),  # not far enough below
        ((86.0,) * 3 + (82.0,) * 3, OK),
        ((96.0,) * 3 + (90.0,) * 3, WARN),
        ((96.0,) * 3 + (10.0, 90.0, 10.0), WARN),
        ((96.0,) * 3 + (10.0,) * 3, OK),
    ],
)
def test_level_changes_after_three_samples(values: tuple[float, ...], level: Level) -> None:
    """Up above a limit, down three points below it."""
    assert levels_of(*values)[-1] is level


@pytest.mark.parametrize("seed", range(50))
def test_noise_makes_one_transition_per_crossing(seed: int) -> None:
    """A ramp with noise of 2 points up through both limits and down again: four transitions."""
    draw = random.Random(seed)
    ramp = [60.0 + 0.25 * step for step in range(160)]
    values = [value + draw.uniform(-2.0, 2.0) for value in (*ramp, *reversed(ramp))]
    levels = levels_of(*values)
    assert [b for a, b in pairwise([OK, *levels]) if a is not b] == [WARN, CRITICAL, WARN, OK]


@given(st.lists(st.floats(0.0, 100.0), max_size=80))
def test_no_level_lasts_shorter_than_the_samples_it_takes(values: list[float]) -> None:
    """Between two changes there are at least three samples."""
    levels = [OK, *levels_of(*values)]
    changes = [index for index, (a, b) in enumerate(pairwise(levels)) if a is not b]
    assert all(later - earlier >= 3 for earlier, later in pairwise(changes))


def test_no_limits_are_never_exceeded() -> None:
    """As for what is only shown."""
    own = LevelWatch(warn=None, critical=None, hysteresis=3.0, samples=1)
    assert own.add(1e9) is OK
