"""The states of a run, and which follow each other."""

from __future__ import annotations

import itertools

import pytest

from lightning_elche.coordination.lifecycle import ALLOWED, Lifecycle, RunState, is_healthy

S = RunState
PATHS = {
    S.INITIALIZING: [],
    S.READY: [S.READY],
    S.RUNNING: [S.READY, S.RUNNING],
    S.PAUSED: [S.READY, S.RUNNING, S.PAUSED],
    S.DRAINING: [S.READY, S.DRAINING],
    S.ERROR: [S.ERROR],
    S.STOPPED: [S.STOPPED],
}
EDGES = {
    "INITIALIZING": "READY STOPPED ERROR",
    "READY": "RUNNING DRAINING STOPPED ERROR",
    "RUNNING": "PAUSED DRAINING ERROR",
    "PAUSED": "RUNNING DRAINING ERROR",
    "DRAINING": "STOPPED ERROR",
    "ERROR": "DRAINING STOPPED",
    "STOPPED": "",
}


def at(state: RunState, now: float = 0.0) -> Lifecycle:
    lifecycle = Lifecycle("run", lambda: now)
    for step in PATHS[state]:
        lifecycle.to(step)
    return lifecycle


@pytest.mark.parametrize(("before", "after"), list(itertools.product(S, S)))
def test_states_follow_each_other_as_in_the_table(before: RunState, after: RunState) -> None:
    """Every pair: allowed, the same, or refused."""
    lifecycle = at(before)
    if after is before:
        assert not lifecycle.to(after)
    elif after.name in EDGES[before.name].split():
        assert lifecycle.to(after)
    else:
        with pytest.raises(RuntimeError, match=f"from {before.name} to {after.name}"):
            lifecycle.to(after)


def test_refusal_says_what_is_allowed() -> None:
    """Nothing follows the end."""
    with pytest.raises(RuntimeError, match=r"from STOPPED to RUNNING\. Allowed: none\."):
        at(S.STOPPED).to(S.RUNNING)
    assert ALLOWED[S.STOPPED] == ()


def test_start_that_fails_is_an_error() -> None:
    """RUNNING is set after `begin` has succeeded."""
    lifecycle = Lifecycle("disk", lambda: 3.0)

    def begin() -> None:
        assert lifecycle.state is S.READY
        raise OSError("no disk")

    with pytest.raises(OSError, match="no disk"):
        lifecycle.start(begin)
    stats = lifecycle.stats()
    assert (stats.state, stats.errors, stats.last_error) == ("ERROR", 1, "OSError: no disk")


def test_close_runs_after_a_failed_stop() -> None:
    """And the part is STOPPED."""
    lifecycle, calls = at(S.RUNNING), []

    def stop() -> None:
        raise OSError("busy")

    with pytest.raises(OSError, match="busy"):
        lifecycle.close(stop, lambda: calls.append("close"))
    assert (lifecycle.state, calls) == (S.STOPPED, ["close"])
    lifecycle.close(stop, lambda: calls.append("again"))
    assert calls == ["close"]


def test_stats_count_operations() -> None:
    """The time since the start has two decimals."""
    now = [10.0]
    lifecycle = Lifecycle("part", lambda: now[0])
    lifecycle.start(lambda: None)
    now[0] = 11.2345
    lifecycle.done(3)
    lifecycle.failed(KeyError("x"))
    assert lifecycle.stats().to_dict() == {
        "name": "part",
        "state": "RUNNING",
        "is_running": True,
        "uptime_s": 1.23,
        "operations": 4,
        "errors": 1,
        "last_operation_s": 11.2345,
        "last_error": "KeyError: 'x'",
    }


@pytest.mark.parametrize(
    ("state", "operations", "errors", "healthy"),
    [
        (S.RUNNING, 0, 0, True),
        (S.PAUSED, 9, 9, True),
        (S.READY, 10, 10, False),
        (S.RUNNING, 100, 10, False),
        (S.RUNNING, 101, 10, True),
        (S.DRAINING, 0, 0, False),
        (S.INITIALIZING, 0, 0, False),
        (S.ERROR, 0, 0, False),
        (S.STOPPED, 0, 0, False),
    ],
)
def test_health_bears_some_errors(
    state: RunState, operations: int, errors: int, healthy: bool
) -> None:
    """Fewer than 10, or less than a tenth."""
    assert is_healthy(state, operations=operations, errors=errors) is healthy
