"""Tests of what counts as a healthy run."""

from __future__ import annotations

import pytest

from lightning_elche.coordination.health import Health, Pulse, healthz, is_ready, summary
from lightning_elche.coordination.lifecycle import Lifecycle, RunState
from tests.coordination.stopwatch import FakeClock

WELL = Health(ok=True, reason="")


@pytest.mark.parametrize(
    ("state", "beats", "age_s", "median_s", "ok"),
    [
        ("RUNNING", 5, 9.9, 0.1, True),
        ("RUNNING", 5, 10.1, 0.1, False),
        ("RUNNING", 5, 29.0, 3.0, True),
        ("RUNNING", 5, 31.0, 3.0, False),
        ("RUNNING", 0, 1799.0, 0.0, True),
        ("RUNNING", 0, 1801.0, 0.0, False),
        ("INITIALIZING", 0, 1799.0, 0.0, True),
        ("READY", 0, 1801.0, 0.0, False),
        ("PAUSED", 5, 9999.0, 0.1, True),
        ("DRAINING", 5, 9999.0, 0.1, True),
        ("STOPPED", 5, 9999.0, 0.1, True),
        ("ERROR", 5, 0.1, 0.1, False),
    ],
)
def test_run_is_left_alone_while_it_moves_on(
    state: str, beats: int, age_s: float, median_s: float, ok: bool
) -> None:
    """Ten seconds or ten batches of silence are too much; a start has half an hour."""
    health = healthz(RunState[state], beats=beats, age_s=age_s, median_s=median_s)
    assert health.ok is ok


def test_reason_has_the_numbers() -> None:
    """So that a probe that fails explains itself."""
    health = healthz(RunState.RUNNING, beats=5, age_s=31.04, median_s=3.0)
    assert health.reason == "the last batch ended 31.0 seconds ago, at most 30.0 are usual"


def test_run_is_ready_while_it_trains_or_pauses() -> None:
    """And in no other state."""
    assert [state.name for state in RunState if is_ready(state)] == ["RUNNING", "PAUSED"]


def test_pulse_tells_what_a_batch_takes() -> None:
    """The median, without the time before the first batch; a validation only shows life."""
    clock = FakeClock()
    pulse = Pulse(clock)
    assert pulse.median_s() == 0.0
    for seconds in (100.0, 1.0, 2.0, 9.0):
        clock.advance(seconds)
        pulse.beat()
    clock.advance(5.0)
    pulse.touch()
    clock.advance(0.5)
    assert (pulse.median_s(), pulse.beats, pulse.age_s) == (2.0, 4, 0.5)


def part(state: str, *, errors: int = 0, operations: int = 0) -> Lifecycle:
    """Return a part that has come to a state."""
    ways = {
        "RUNNING": ("READY", "RUNNING"),
        "ERROR": ("ERROR",),
        "STOPPED": ("STOPPED",),
        "INITIALIZING": (),
    }
    one = Lifecycle("part", FakeClock())
    for step in ways[state]:
        one.to(RunState[step])
    for _ in range(errors):
        one.failed(OSError("no"))
    one.done(operations - errors)
    return one


@pytest.mark.parametrize(
    ("state", "errors", "operations", "run", "health"),
    [
        ("RUNNING", 0, 0, "RUNNING", "OK"),
        ("RUNNING", 9, 9, "RUNNING", "OK"),
        ("RUNNING", 10, 99, "RUNNING", "DEGRADED"),
        ("RUNNING", 10, 101, "RUNNING", "OK"),
        ("ERROR", 1, 1, "RUNNING", "ERROR"),
        ("STOPPED", 0, 0, "RUNNING", "DEGRADED"),
        ("STOPPED", 0, 0, "DRAINING", "OK"),
        ("STOPPED", 99, 99, "STOPPED", "DEGRADED"),
    ],
)
def test_run_is_healthy_if_all_its_parts_are(
    state: str, errors: int, operations: int, run: str, health: str
) -> None:
    """Ten errors are too many where they are a tenth of all operations."""
    stats = part(state, errors=errors, operations=operations).stats()
    found = summary(RunState[run], WELL, [stats])
    assert found["components"]["part"]["health"] == health  # type: ignore[index]
    assert found["healthy"] is (health == "OK")


def test_summary_says_whether_the_run_ends() -> None:
    """With its state, and why it is not well."""
    found = summary(RunState.DRAINING, Health(ok=False, reason="why"), [])
    expected = {"healthy": False, "reason": "why", "state": "DRAINING", "stopping": True}
    assert found == {**expected, "components": {}}
