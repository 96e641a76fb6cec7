"""The replicated controller."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.control.cadence import CadenceConfig
from lightning_elche.control.controller import Controller
from lightning_elche.control.guard import GuardAction, GuardConfig
from lightning_elche.control.reports import Report

TIME_MS = st.just(0.0) | st.floats(min_value=0.01, max_value=1e5)
REPORT = st.builds(
    Report,
    batches=st.integers(min_value=0, max_value=500),
    compute_ms=TIME_MS,
    transfer_ms=TIME_MS,
    relative_delta=st.floats(min_value=0.0, max_value=1.0),
)
EVENTS = st.lists(st.tuples(REPORT, REPORT, REPORT), max_size=6)


def reports_of(delta: float = 0.0, transfer_ms: float = 0.0) -> list[Report]:
    """Return the reports of a window of a fast and a slow rank."""
    return [
        Report(batches=40, compute_ms=680.0, relative_delta=delta, transfer_ms=transfer_ms),
        Report(batches=10, compute_ms=680.0),
    ]


def test_plan_holds_what_was_measured() -> None:
    """One event is enough to plan the next window."""
    plan = Controller(2).report(reports_of())
    assert (plan.index, plan.anchor, plan.local_steps) == (1, 10, (40, 10))
    assert plan.ms_per_batch == (17.0, 68.0)
    assert plan.shares == pytest.approx((0.8, 0.2))
    assert (plan.slowest, plan.fastest, plan.is_calibrated) == (1, 0, True)


def test_anchor_is_tuned_by_the_largest_cost() -> None:
    """The most expensive rank's exchange counts: 20 % of the window against a target of 10 %."""
    controller = Controller(2, cadence=CadenceConfig(overhead_target=0.10))
    controller.report(reports_of())
    assert controller.report(reports_of(transfer_ms=136.0)).anchor == 20


def test_waiting_does_not_lengthen_the_window() -> None:
    """A straggler costs idle time, which is no overhead of the exchange."""
    waiting = [replace(report, wait_ms=1e6) for report in reports_of()]
    assert Controller(2).report(waiting).anchor == 10


def test_first_event_has_no_divergence_to_report() -> None:
    """Reports speak of the event before, which the first one does not have."""
    controller = Controller(2)
    controller.report(reports_of(delta=math.nan))
    assert controller.guard.deltas == ()


def test_largest_divergence_reaches_the_guard() -> None:
    """The replica farthest from the average counts."""
    controller = Controller(2)
    controller.report(reports_of(delta=0.25))
    assert controller.guard.deltas == (0.25,)


def test_large_divergence_halves_the_window() -> None:
    """Three events above four times the threshold tighten by a factor of two."""
    controller = Controller(2)
    anchors = [controller.report(reports_of(delta=0.3)).anchor for _ in range(5)]
    assert anchors == [10, 10, 5, 3, 2]
    assert controller.action is GuardAction.TIGHTEN


def test_rising_divergence_forbids_growth() -> None:
    """While divergence rises, an expensive exchange does not lengthen the window."""
    controller = Controller(2)
    for delta in (0.0, 0.02, 0.04):
        controller.report(reports_of(delta=delta))
    assert controller.report(reports_of(delta=0.06, transfer_ms=680.0)).anchor == 10
    assert controller.action is GuardAction.HOLD


def test_disabled_guard_lets_the_window_grow() -> None:
    """Without the guard, the same events lengthen the window."""
    cadence = CadenceConfig(overhead_target=0.10)
    controller = Controller(2, cadence=cadence, guard=GuardConfig(enabled=False))
    for delta in (0.0, 0.02, 0.04):
        controller.report(reports_of(delta=delta))
    assert controller.report(reports_of(delta=0.06, transfer_ms=680.0)).anchor == 100


def test_costly_crossings_space_events_that_cross_and_leave_the_window_alone() -> None:
    """Exchanging across nodes takes 20 % of the window, inside nodes next to nothing."""
    controller = Controller(2, cadence=CadenceConfig(overhead_target=0.10), nodes=[0, 1])
    plans = [controller.plan]
    for _ in range(12):
        crosses = plans[-1].crosses_nodes
        previous = plans[-2].crosses_nodes if len(plans) > 1 else False
        transfer_ms = 130.0 if previous else 1.0
        plans.append(
            controller.report(reports_of(delta=0.01, transfer_ms=transfer_ms), crossed=crosses)
        )
    assert controller.hierarchy.every == 2
    assert {plan.anchor for plan in plans} == {10}
    assert [plan.crosses_nodes for plan in plans[-4:]] in ([False, True] * 2, [True, False] * 2)


def test_divergence_inside_a_node_is_not_the_guards_concern() -> None:
    """Replicas that are compared with their own node's seem closer than they are."""
    controller = Controller(2, nodes=[0, 1])
    controller.report(reports_of(delta=math.nan), crossed=False)
    controller.report(reports_of(delta=0.001), crossed=True)
    assert controller.guard.deltas == ()
    controller.report(reports_of(delta=0.3), crossed=True)
    assert controller.guard.deltas == (0.3,)


def test_nodes_meet_more_often_before_windows_get_shorter() -> None:
    """Where they drift apart; an action is taken once."""
    controller = Controller(2, cadence=CadenceConfig(overhead_target=0.10), nodes=[0, 1])
    controller.report(reports_of())
    for _ in range(2):
        controller.report(reports_of(delta=0.01, transfer_ms=136.0))
    assert (controller.hierarchy.every, controller.plan.anchor) == (2, 10)
    for _ in range(3):
        controller.report(reports_of(delta=0.3, transfer_ms=136.0), crossed=True)
    assert controller.action is GuardAction.TIGHTEN
    assert (controller.hierarchy.every, controller.plan.anchor) == (1, 10)
    controller.report(reports_of(delta=0.3), crossed=False)
    assert controller.plan.anchor == 5
    controller.report(reports_of(delta=0.001))
    assert (controller.action, controller.plan.anchor) == (GuardAction.HOLD, 5)


def test_configuration_reaches_the_cadence() -> None:
    """The limits given to the controller hold."""
    controller = Controller(2, cadence=CadenceConfig(anchor=3, max_anchor=4))
    assert controller.report(reports_of(transfer_ms=1e6)).anchor == 4


def test_reset_forgets_everything() -> None:
    """After a reset the controller is as new."""
    controller = Controller(2)
    for _ in range(5):
        controller.report(reports_of(delta=0.3))
    controller.reset()
    assert controller.state_dict() == Controller(2).state_dict()
    assert controller.action is GuardAction.STABLE


def test_repr_shows_what_matters() -> None:
    """The text names the parts."""
    text = repr(Controller(2))
    assert text.startswith("Controller(index=0, ElChe(anchor=10,")
    assert "ConvergenceGuard(" in text


def test_reports_are_refused_from_too_few_ranks() -> None:
    """A missing report is an error, not a silent zero."""
    with pytest.raises(IndexError):
        Controller(3).report(reports_of())


@given(events=EVENTS)
def test_same_reports_give_the_same_plan_on_every_rank(
    events: list[tuple[Report, ...]],
) -> None:
    """Two controllers that hear the same never disagree."""
    one, other = Controller(3), Controller(3)
    for event in events:
        assert one.report(event) == other.report(event)
        assert one.action == other.action


@given(past=EVENTS, future=EVENTS)
def test_state_round_trip_continues_identically(
    past: list[tuple[Report, ...]], future: list[tuple[Report, ...]]
) -> None:
    """A controller restored through JSON plans as the one that went on."""
    original, restored = Controller(3), Controller(3)
    for event in past:
        original.report(event)
    restored.load_state_dict(json.loads(json.dumps(original.state_dict())))
    assert restored.plan == original.plan
    assert [restored.report(e) for e in future] == [original.report(e) for e in future]


@given(events=EVENTS)
def test_plan_is_sound_for_any_reports(events: list[tuple[Report, ...]]) -> None:
    """Counts are at least one, shares sum to one, and the anchor keeps to its maximum."""
    controller = Controller(3)
    for event in events:
        plan = controller.report(event)
        assert min(plan.local_steps) >= 1
        assert sum(plan.shares) == pytest.approx(1.0)
        assert 1 <= plan.anchor <= 200


def test_sync_policy_never_tightens() -> None:
    """Replicas that are averaged at every step are not guarded."""
    controller = Controller(2, policy="sync")
    for _ in range(5):
        controller.report(reports_of(delta=1e6))
    assert (controller.action, controller.plan.policy) == (GuardAction.STABLE, "sync")


def test_skipped_batches_do_not_make_a_rank_look_fast() -> None:
    """Only those that were trained to the end are timed."""
    controller = Controller(2)
    half = Report(batches=10, skipped=5, compute_ms=50.0)
    controller.report([Report(batches=10, compute_ms=100.0), half])
    assert controller.plan.ms_per_batch == (10.0, 10.0)
