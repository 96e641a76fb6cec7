"""How long a stop may take, and what is done until then."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.control.requests import StopCause, first_cause
from lightning_elche.coordination.stopping.stop import (
    Moment,
    Progress,
    StopAction,
    StopBudget,
    StopConfig,
    estimated_save_s,
    lockstep_stop,
    next_action,
    plan_stop,
)
from tests.coordination.stopwatch import FakeClock

BUDGET = StopBudget(began=100.0, last_call=119.0, t_end=125.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grace_s": 0.0}, r"`grace_s` must be > 0 and finite, got 0\.0"),
        ({"grace_s": float("inf")}, "`grace_s`"),
        ({"signals": ("SIGKILL",)}, "`signals` must be names among SIGTERM.*, got 'SIGKILL'"),
        ({"signals": "SIGTERM,SIGINT"}, "`signals`"),
        ({"exit_code": 256}, r"`exit_code` must be in \[0, 255\], got 256"),
        ({"requeue": "yes"}, '`requeue` must be one of "auto", "always", "never", got \'yes\''),
        ({"poll_s": 0.0}, "`poll_s`"),
    ],
)
def test_bad_option_is_named(options: dict[str, Any], message: str) -> None:
    """The message says what it should be, and what it was."""
    with pytest.raises(ValueError, match=message):
        StopConfig(**options)


def test_signals_of_a_file_become_a_tuple() -> None:
    """YAML and JSON have lists only."""
    assert StopConfig(signals=["SIGTERM"]).signals == ("SIGTERM",)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cause", "code"),
    [
        (StopCause.SIGTERM, 99),
        (StopCause.SIGINT, 130),
        (StopCause.REQUEUE, 99),
        (StopCause.HALT, 99),
        (StopCause.DEADLINE, 99),
        (StopCause.BREAKER, 1),
        (StopCause.THRESHOLD, 1),
        (StopCause.FAILURE, 1),
        (StopCause.API, 99),
        (StopCause.NONE, 0),
    ],
)
def test_exit_code_tells_the_cause(cause: StopCause, code: int) -> None:
    """The option holds but for an interrupt and for failures."""
    assert StopConfig(exit_code=99).exit_code_of(cause) == code


def test_smallest_cause_counts() -> None:
    """A signal before a file, a file before code."""
    assert first_cause([StopCause.API, StopCause.NONE, StopCause.HALT]) is StopCause.HALT
    assert first_cause([]) is StopCause.NONE


@pytest.mark.parametrize(
    ("p95_s", "num_bytes", "seconds"), [(0.5, 10**12, 0.5), (None, 0, 2.0), (None, 2 * 10**9, 10.0)]
)
def test_time_of_an_unknown_checkpoint_follows_its_size(
    p95_s: float | None, num_bytes: int, seconds: float
) -> None:
    """200 MB a second, and at least 2 seconds; what was measured beats that."""
    assert estimated_save_s(p95_s, num_bytes) == seconds


@pytest.mark.parametrize(
    ("grace_s", "save_s", "has_trained", "last_call", "t_end"),
    [
        (25.0, 2.0, True, 19.0, 25.0),
        (10.0, 2.0, True, 4.0, 10.0),
        (4.0, 2.0, True, 1.0, 4.0),  # a quarter, to meet
        (25.0, 2.0, False, 1.25, 5.0),
        (3.0, 0.1, False, 0.75, 3.0),
    ],
)
def test_budget_leaves_time_to_save(
    grace_s: float, save_s: float, has_trained: bool, last_call: float, t_end: float
) -> None:
    """One and a half checkpoints and 3 seconds; where nothing was trained 5 seconds in all."""
    found = plan_stop(100.0, grace_s=grace_s, save_s=save_s, has_trained=has_trained)
    assert (found.last_call - 100.0, found.t_end - 100.0) == (last_call, t_end)


@given(st.floats(0.1, 1e4), st.floats(0.0, 1e5), st.booleans())
def test_budget_is_in_order(grace_s: float, save_s: float, has_trained: bool) -> None:
    """There is always time to meet, and always an end after it within the grace."""
    found = plan_stop(5.0, grace_s=grace_s, save_s=save_s, has_trained=has_trained)
    assert found.began < found.last_call <= found.t_end <= 5.0 + grace_s


@pytest.mark.parametrize(
    ("now", "has_trained", "left_s", "action"),
    [
        (101.0, True, None, StopAction.MEET),
        (101.0, True, 17.0, StopAction.FINISH),
        (101.0, True, 19.0, StopAction.SOLO),
        (119.0, True, None, StopAction.SOLO),
        (119.0, True, 0.0, StopAction.SOLO),
        (101.0, False, 1.0, StopAction.LEAVE),
        (125.0, False, None, StopAction.EXIT),
        (130.0, True, None, StopAction.EXIT),
    ],
)
def test_action_follows_the_moment(
    now: float, has_trained: bool, left_s: float | None, action: StopAction
) -> None:
    """Meet while there is time, save alone after that, and end in any case."""
    moment = Moment(now=now, has_trained=has_trained, left_s=left_s)
    assert next_action(BUDGET, moment) is action


def test_time_that_is_left_follows_the_pace_so_far() -> None:
    """Three batches in six seconds, seven to go."""
    clock = FakeClock()
    progress = Progress(10, clock)
    clock.advance(6.0)
    progress.done = 3
    assert progress.left_s() == 14.0


@pytest.mark.parametrize(("step_s", "at"), [(0.25, 16), (0.3, 16), (2.0, 13), (0.01, 112)])
def test_lockstep_stop_is_a_second_and_two_steps_ahead(step_s: float, at: int) -> None:
    """So that every rank has heard of it before."""
    assert lockstep_stop(10, step_s) == at
