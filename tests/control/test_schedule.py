"""When ranks meet."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.control.controller import Controller
from lightning_elche.control.reports import Report
from lightning_elche.control.schedule import Plan, Window, is_ready, patience_ms, should_average


def plan_of(*ms: float) -> Plan:
    """Return the plan after one window in which steps took `ms` on the ranks."""
    reports = [Report(batches=10, compute_ms=10.0 * value) for value in ms]
    return Controller(len(ms)).report(reports)


UNMEASURED = Controller(2).plan
FAST_AND_SLOW = plan_of(17.0, 68.0)  # 680 ms, of which rank 0 agrees after 612


def test_plan_of_an_uncalibrated_controller_has_no_duration() -> None:
    """Before speeds are known a window has no planned time."""
    assert UNMEASURED.anchor_wall_ms == 0.0


def test_plan_lasts_as_long_as_the_steps_of_the_slowest() -> None:
    """The planned time is the anchor times the longest step."""
    assert FAST_AND_SLOW.anchor_wall_ms == 680.0


def test_fastest_is_the_lowest_rank_on_a_tie() -> None:
    """Of equal ranks the first is taken."""
    assert plan_of(20.0, 10.0, 10.0).fastest == 1


@pytest.mark.parametrize(("steps", "ready"), [(9, False), (10, True), (11, True)])
def test_unmeasured_rank_is_ready_at_its_step_count(steps: int, ready: bool) -> None:
    """Before calibration a rank agrees when its count is reached, whatever the time."""
    assert is_ready(UNMEASURED, 1, Window(steps=steps, compute_ms=1e9)) is ready


@pytest.mark.parametrize(
    ("steps", "compute_ms", "ready"),
    [(9, 679.9, False), (10, 500.0, True), (5, 680.0, True), (9, 0.0, False)],
)
def test_slowest_rank_is_ready_by_count_or_by_time(
    steps: int, compute_ms: float, ready: bool
) -> None:
    """The slowest rank agrees after `anchor` steps, or after the planned time if it is slower."""
    assert is_ready(FAST_AND_SLOW, 1, Window(steps=steps, compute_ms=compute_ms)) is ready


@pytest.mark.parametrize(
    ("rank", "steps", "ready"),
    [(0, 39, False), (0, 40, True), (0, 50, True), (1, 9, False), (1, 10, True)],
)
def test_async_rank_is_ready_at_its_own_count(rank: int, steps: int, ready: bool) -> None:
    """With policy "async" time does not count: 40 steps of the fast rank, 10 of the slow one."""
    plan = replace(FAST_AND_SLOW, policy="async")
    assert is_ready(plan, rank, Window(steps=steps, compute_ms=1e9)) is ready


@pytest.mark.parametrize("plan", [UNMEASURED, FAST_AND_SLOW])
def test_sync_rank_is_ready_after_every_step(plan: Plan) -> None:
    """With policy "sync" one step is a window, measured or not."""
    plan = replace(plan, policy="sync")
    assert not is_ready(plan, 0, Window(steps=0, compute_ms=0.0))
    assert is_ready(plan, 0, Window(steps=1, compute_ms=1.0))


def test_sync_rank_waits_for_all() -> None:
    """With policy "sync" no rank takes a second step before the others have taken one."""
    plan = replace(FAST_AND_SLOW, policy="sync")
    assert patience_ms(plan, 0, Window(steps=1, compute_ms=1.0)) == float("inf")


@pytest.mark.parametrize(("compute_ms", "ready"), [(611.9, False), (612.0, True), (680.0, True)])
def test_faster_rank_is_ready_one_slow_step_early(compute_ms: float, ready: bool) -> None:
    """Everybody else agrees one step of the slowest rank before the planned end."""
    assert is_ready(FAST_AND_SLOW, 0, Window(steps=36, compute_ms=compute_ms)) is ready


def test_faster_rank_is_not_ready_by_its_count() -> None:
    """After calibration time decides, so that many steps alone agree to nothing."""
    assert not is_ready(FAST_AND_SLOW, 0, Window(steps=1000, compute_ms=600.0))


@pytest.mark.parametrize("plan", [UNMEASURED, FAST_AND_SLOW])
@pytest.mark.parametrize("rank", [0, 1])
def test_rank_without_a_step_is_never_ready(plan: Plan, rank: int) -> None:
    """Every rank contributes at least one step to a window."""
    assert not is_ready(replace(plan, anchor=1), rank, Window(steps=0, compute_ms=1e9))


@pytest.mark.parametrize("rank", [0, 1])
def test_accumulating_rank_is_never_ready(rank: int) -> None:
    """Parameters are not averaged in the midst of an accumulated step."""
    window = Window(steps=99, compute_ms=1e9, is_accumulating=True)
    assert not is_ready(FAST_AND_SLOW, rank, window)


@pytest.mark.parametrize("plan", [UNMEASURED, FAST_AND_SLOW])
def test_drained_rank_is_always_ready(plan: Plan) -> None:
    """A rank without data agrees at once, so that nobody waits for it."""
    window = Window(steps=0, compute_ms=0.0, is_drained=True, is_accumulating=True)
    assert is_ready(plan, 0, window)


def test_anchor_of_one_lets_the_fast_rank_agree_after_its_first_step() -> None:
    """With one slow step per window there is no earlier slow step to wait for."""
    plan = replace(FAST_AND_SLOW, anchor=1)
    assert is_ready(plan, 0, Window(steps=1, compute_ms=17.0))


@pytest.mark.parametrize(
    ("compute_ms", "patience"),
    [(92.4, 0.0), (95.0, 5.0), (100.0, 5.0), (110.0, 5.0)],
)
def test_equal_rank_waits_up_to_half_a_step_near_the_end(
    compute_ms: float, patience: float
) -> None:
    """Between equal ranks waiting is cheaper than stepping for half a step."""
    plan = plan_of(10.0, 10.0)
    assert patience_ms(plan, 1, Window(steps=9, compute_ms=compute_ms)) == patience


def test_much_faster_rank_waits_next_to_nothing() -> None:
    """A rank four times as fast waits a fifth of its own step."""
    assert patience_ms(FAST_AND_SLOW, 0, Window(steps=40, compute_ms=680.0)) == 3.4


@pytest.mark.parametrize(
    ("plan", "rank", "window"),
    [
        (UNMEASURED, 0, Window(steps=10, compute_ms=100.0)),
        (FAST_AND_SLOW, 1, Window(steps=10, compute_ms=680.0)),
        (FAST_AND_SLOW, 0, Window(steps=40, compute_ms=680.0, is_drained=True)),
        (FAST_AND_SLOW, 0, Window(steps=38, compute_ms=646.0)),
    ],
    ids=["unmeasured", "slowest", "drained", "too early"],
)
def test_rank_does_not_wait_without_a_reason(plan: Plan, rank: int, window: Window) -> None:
    """Only a measured, faster rank at the planned end waits for the slowest one."""
    assert patience_ms(plan, rank, window) == 0.0


READY = (Window(steps=40, compute_ms=680.0), Window(steps=10, compute_ms=680.0))


def test_event_is_due_when_every_rank_is_ready() -> None:
    """Agreement of all ranks is enough."""
    assert should_average(FAST_AND_SLOW, READY)


@pytest.mark.parametrize("late", [0, 1])
def test_event_is_not_due_while_one_rank_is_not_ready(late: int) -> None:
    """A single rank without a step holds the event up."""
    windows = [replace(w, steps=0) if rank == late else w for rank, w in enumerate(READY)]
    assert not should_average(FAST_AND_SLOW, windows)


@pytest.mark.parametrize("reason", ["is_in_flight", "is_complete", "is_member_lost"])
def test_event_is_not_due_when_forbidden(reason: str) -> None:
    """No event starts during another, after the end, or with a rank gone."""
    assert not should_average(FAST_AND_SLOW, READY, **{reason: True})


@given(
    ms=st.lists(st.floats(min_value=0.1, max_value=1000.0), min_size=2, max_size=6),
    steps=st.integers(min_value=1, max_value=1000),
    data=st.data(),
)
def test_patience_is_less_than_one_own_step_for_any_speeds(
    ms: list[float], steps: int, data: st.DataObject
) -> None:
    """No rank waits as long as one of its own steps would take."""
    plan, rank = plan_of(*ms), data.draw(st.integers(min_value=0, max_value=len(ms) - 1))
    own_ms = plan.ms_per_batch[rank]
    assert patience_ms(plan, rank, Window(steps=steps, compute_ms=steps * own_ms)) < own_ms


@given(ms=st.lists(st.floats(min_value=0.1, max_value=1000.0), min_size=2, max_size=6))
def test_every_rank_is_ready_at_the_planned_end_for_any_speeds(ms: list[float]) -> None:
    """At the end of the planned time all ranks agree."""
    plan = plan_of(*ms)
    windows = [Window(steps=1, compute_ms=plan.anchor_wall_ms) for _ in ms]
    assert should_average(plan, windows)
