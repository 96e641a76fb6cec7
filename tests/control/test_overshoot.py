"""How far a rank may train ahead into the next epoch."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.control.chunks import ChunkConfig
from lightning_elche.control.controller import Controller
from lightning_elche.control.guard import GuardAction
from lightning_elche.control.overshoot import Overshoot, may_look_ahead
from lightning_elche.control.reports import Report
from lightning_elche.control.schedule import Plan

STABLE, HOLD, TIGHTEN = GuardAction
ACTIONS = st.lists(st.sampled_from(GuardAction), max_size=30)
CONFIGS = st.builds(
    ChunkConfig,
    max_overshoot=st.none() | st.integers(0, 4),
    overshoot_ceiling=st.integers(4, 20),
    lookahead_epochs=st.integers(0, 1),
)
BATCHES = st.integers(0, 3000)


def overshoot_of(batches: int, *actions: GuardAction, **config: int) -> Overshoot:
    """Return the overshoot in an epoch of so many batches after these events."""
    overshoot = Overshoot(ChunkConfig(**config))
    overshoot.open_epoch(batches)
    for action in actions:
        overshoot.report(action)
    return overshoot


def plan_of(*ms: float, max_overshoot: int = 3) -> Plan:
    """Return the plan after one window in which steps took `ms` on the ranks."""
    reports = [Report(batches=10, compute_ms=10.0 * value) for value in ms]
    return replace(Controller(len(ms)).report(reports), max_overshoot=max_overshoot)


@pytest.mark.parametrize(
    ("batches", "initial", "limit"), [(50, 2, 3), (300, 3, 6), (400, 4, 8), (5000, 5, 10)]
)
def test_overshoot_starts_and_ends_by_the_size_of_the_epoch(
    batches: int, initial: int, limit: int
) -> None:
    """A hundredth of the epoch at first, a fiftieth after many stable events."""
    assert overshoot_of(batches).value == initial
    assert overshoot_of(batches, *[STABLE] * 20).value == limit


def test_overshoot_grows_by_one_per_stable_event() -> None:
    """The bound follows events, not time."""
    assert overshoot_of(400, STABLE, STABLE).value == 6


def test_held_cadence_stops_growth() -> None:
    """Rising divergence leaves the bound where it is."""
    assert overshoot_of(400, STABLE, HOLD, HOLD).value == 5


def test_tightened_cadence_undoes_growth() -> None:
    """Replicas far apart bring the bound back to its start."""
    assert overshoot_of(400, STABLE, STABLE, TIGHTEN).value == 4


def test_number_set_by_hand_stays() -> None:
    """Neither growth nor divergence moves it."""
    assert overshoot_of(400, STABLE, TIGHTEN, STABLE, max_overshoot=7).value == 7


def test_ceiling_bounds_the_growth() -> None:
    """The automatic bound keeps to the ceiling."""
    assert overshoot_of(5000, *[STABLE] * 20, overshoot_ceiling=6).value == 6


@pytest.mark.parametrize("config", [{"max_overshoot": 0}, {"lookahead_epochs": 0}])
def test_zero_turns_looking_ahead_off(config: dict[str, int]) -> None:
    """Either option forbids batches of the next epoch."""
    assert overshoot_of(400, STABLE, **config).value == 0


def test_overshoot_is_zero_before_an_epoch_and_without_a_pool() -> None:
    """Where no batches are dealt, there is nothing to look ahead to."""
    assert Overshoot().value == 0
    assert overshoot_of(0, STABLE).value == 0


def test_next_epoch_keeps_what_has_grown() -> None:
    """Growth lasts, within the bounds of the new epoch."""
    overshoot = overshoot_of(400, STABLE, STABLE)
    overshoot.open_epoch(400)
    assert overshoot.value == 6
    overshoot.open_epoch(50)
    assert overshoot.value == 3


def test_reset_and_repr() -> None:
    """After a reset nothing is left, and the text shows the value."""
    overshoot = overshoot_of(400, STABLE)
    assert repr(overshoot) == "Overshoot(value=5, batches=400)"
    overshoot.reset()
    assert overshoot.state_dict() == Overshoot().state_dict()


@given(config=CONFIGS, batches=BATCHES, actions=ACTIONS)
def test_overshoot_keeps_to_its_bounds(
    config: ChunkConfig, batches: int, actions: list[GuardAction]
) -> None:
    """Whatever happens, it lies between its start and the ceiling, and moves by one at most."""
    overshoot = Overshoot(config)
    overshoot.open_epoch(batches)
    initial = before = overshoot.value
    for action in actions:
        overshoot.report(action)
        assert initial <= overshoot.value <= min(config.overshoot_ceiling, before + 1)
        before = overshoot.value


@given(config=CONFIGS, batches=BATCHES, past=ACTIONS, future=ACTIONS)
def test_state_round_trip_continues_identically(
    config: ChunkConfig, batches: int, past: list[GuardAction], future: list[GuardAction]
) -> None:
    """An overshoot restored through JSON goes on as the one that was saved."""
    original, restored = Overshoot(config), Overshoot(config)
    original.open_epoch(batches)
    for action in past:
        original.report(action)
    restored.load_state_dict(json.loads(json.dumps(original.state_dict())))
    for action in future:
        original.report(action)
        restored.report(action)
    assert restored.state_dict() == original.state_dict()


def test_gate_is_the_planned_steps_and_the_overshoot() -> None:
    """Of 100 planned steps and 3 more, batches in flight take their part."""
    plan = plan_of(10.0, 100.0)
    allowed = [may_look_ahead(plan, 0, steps=steps, in_flight=2) for steps in (99, 100, 101)]
    assert (plan.local_steps[0], allowed) == (100, [True, True, False])


def test_slowest_rank_never_looks_ahead() -> None:
    """All others would wait for the end of its step."""
    plan = plan_of(10.0, 30.0, 100.0)
    assert [may_look_ahead(plan, rank, steps=0, in_flight=0) for rank in range(3)] == [
        True,
        True,
        False,
    ]


def test_nobody_looks_ahead_before_speeds_are_known() -> None:
    """Without a measurement anyone may be the slowest."""
    plan = replace(Controller(2).plan, max_overshoot=3)
    assert not any(may_look_ahead(plan, rank, steps=0, in_flight=0) for rank in (0, 1))


def test_nobody_looks_ahead_without_overshoot() -> None:
    """An overshoot of zero closes the gate also for planned steps."""
    plan = plan_of(10.0, 100.0, max_overshoot=0)
    assert not may_look_ahead(plan, 0, steps=0, in_flight=0)


def test_controller_plans_the_overshoot() -> None:
    """The plan carries it, equal on every rank, and events move it."""
    controller = Controller(2, chunks=ChunkConfig(overshoot_ceiling=5))
    assert controller.plan.max_overshoot == 0
    assert controller.open_epoch(400).max_overshoot == 4
    reports = [Report(batches=10, compute_ms=100.0)] * 2
    assert [controller.report(reports).max_overshoot for _ in range(3)] == [5, 5, 5]
