"""When a checkpoint is due."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.partition.errors import InvalidConfig
from lightning_elche.partition.policy import CheckpointPolicy

STEPS = CheckpointPolicy(every_steps=10)


@pytest.mark.parametrize(
    ("step", "last_step", "is_due"),
    [
        (0, 0, False),
        (9, 0, False),
        (10, 9, True),
        (11, 10, False),
        (10, 10, False),
        (13, 8, True),  # jumped over 10
        (45, 8, True),  # jumped over several
        (19, 11, False),
    ],
)
def test_steps_are_due_when_a_multiple_is_reached(step: int, last_step: int, is_due: bool) -> None:
    """A checkpoint is due once a multiple is reached or jumped over, and not again after it."""
    assert STEPS.due(step, last_step) is is_due


@given(every=st.integers(1, 50), step=st.integers(1, 1000))
def test_steps_of_one_are_due_at_multiples(every: int, step: int) -> None:
    """If the step advances by one, multiples of the interval are due and nothing else."""
    assert CheckpointPolicy(every_steps=every).due(step, step - 1) is (step % every == 0)


@given(jumps=st.lists(st.integers(1, 40), min_size=1, max_size=60))
def test_no_interval_is_left_out(jumps: list[int]) -> None:
    """However the step advances, there is one checkpoint in each interval that a step falls in."""
    steps = [0]
    for jump in jumps:
        steps.append(steps[-1] + jump)
    due = [now // 10 for last, now in pairwise(steps) if STEPS.due(now, last)]
    assert due == sorted({step // 10 for step in steps} - {0})


@pytest.mark.parametrize(
    ("epochs", "last_epochs", "is_due"), [(1, 0, False), (2, 1, True), (3, 2, False), (4, 3, True)]
)
def test_epochs_are_due_by_their_number(epochs: int, last_epochs: int, is_due: bool) -> None:
    """With every second epoch, even numbers are due."""
    policy = CheckpointPolicy(every_steps=None, every_epochs=2)
    assert policy.due(1, 0, epochs=epochs, last_epochs=last_epochs) is is_due


@pytest.mark.parametrize(("elapsed_s", "is_due"), [(59.9, False), (60.0, True)])
def test_time_is_due_when_it_is_over(elapsed_s: float, is_due: bool) -> None:
    """The interval is counted from the last checkpoint."""
    policy = CheckpointPolicy(every_steps=None, every_s=60.0)
    assert policy.due(1, 0, elapsed_s=elapsed_s) is is_due


def test_any_rule_is_enough() -> None:
    """A rule that is due makes a checkpoint though the others are not."""
    policy = CheckpointPolicy(every_steps=10, every_epochs=1, every_s=60.0)
    assert policy.due(3, 2, epochs=1, last_epochs=0)
    assert not policy.due(3, 2, epochs=1, last_epochs=1, elapsed_s=3.0)


def test_disabled_policy_is_never_due() -> None:
    """Without a rule nothing is due."""
    late = CheckpointPolicy.disabled().due(10**6, 0, epochs=9, last_epochs=0, elapsed_s=1e9)
    assert not late


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"every_steps": 0}, "checkpoint interval_steps must be greater than zero"),
        ({"every_epochs": 0}, "`every_epochs` must be >= 1, got 0."),
        ({"every_s": 0.0}, "`every_s` must be > 0, got 0.0."),
        ({"every_s": float("nan")}, "`every_s` must be > 0, got nan."),
    ],
)
def test_interval_of_nothing_is_refused(options: dict[str, Any], text: str) -> None:
    """Intervals are positive."""
    with pytest.raises(InvalidConfig) as caught:
        CheckpointPolicy(**options)
    assert str(caught.value) == f"invalid control-plane configuration: {text}"
