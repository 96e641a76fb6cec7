"""Which events cross nodes, and what ranks weigh in them."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.control.guard import GuardAction
from lightning_elche.control.hierarchy import MAX_EVERY, Hierarchy

NODES = [0, 0, 1, 1]
WINDOW_MS = 100.0  # of which 10 ms may go to the exchange


def hierarchy_of(*nodes: int) -> Hierarchy:
    return Hierarchy(nodes or NODES, overhead_target=0.1)


def go_on(
    hierarchy: Hierarchy,
    *,
    events: int,
    across_ms: float = 0.0,
    inside_ms: float = 0.0,
    action: GuardAction = GuardAction.STABLE,
) -> list[bool]:
    """Let events follow their plan, and return which of them crossed nodes."""
    crossings = []
    for _ in range(events):
        crosses = hierarchy.crosses_next
        hierarchy.report(
            [1.0] * len(hierarchy.nodes),
            crossed=crosses,
            transfer_ms=across_ms if hierarchy.has_crossed else inside_ms,
            window_ms=WINDOW_MS,
            action=action,
        )
        crossings.append(crosses)
    return crossings


@pytest.mark.parametrize(
    ("across_ms", "inside_ms", "every"),
    [
        (9.0, 0.0, 1),  # fits as it is
        (11.0, 0.0, 2),
        (39.0, 0.0, 4),
        (39.0, 3.0, 6),  # 36 ms by the 7 that are left of 10
        (49.0, 9.0, 8),  # 40 ms by 5, the half that is kept
        (1e9, 0.0, MAX_EVERY),
    ],
)
def test_crossings_are_so_rare_that_they_fit_the_target(
    across_ms: float, inside_ms: float, every: int
) -> None:
    """The mean cost of an event is at most 10 ms, or 5 ms beside what a node takes."""
    hierarchy = hierarchy_of()
    go_on(hierarchy, events=2000, across_ms=across_ms, inside_ms=inside_ms)
    assert hierarchy.every == every
    crossings = go_on(hierarchy, events=2 * every, across_ms=across_ms, inside_ms=inside_ms)
    assert sum(crossings) == 2


def test_first_costs_are_not_taken_at_their_word() -> None:
    """Connections are made in the first exchange; the distance at most doubles at a crossing."""
    hierarchy = hierarchy_of()
    go_on(hierarchy, events=2, across_ms=1000.0)
    assert hierarchy.every == 2


def test_nodes_meet_again_more_often_once_the_network_is_fast() -> None:
    """One event fewer at every crossing, down to none."""
    hierarchy = hierarchy_of()
    go_on(hierarchy, events=20, across_ms=39.0)
    lengths = []
    for _ in range(20):
        go_on(hierarchy, events=1, across_ms=1.0)
        lengths.append(hierarchy.every)
    assert (lengths[0], lengths[-1]) == (4, 1)
    assert sorted(lengths, reverse=True) == lengths


@pytest.mark.parametrize(("action", "every"), [(GuardAction.HOLD, 4), (GuardAction.TIGHTEN, 2)])
def test_guard_keeps_nodes_from_drifting_apart(action: GuardAction, every: int) -> None:
    """Held, the distance does not grow; tightened, it is halved."""
    hierarchy = hierarchy_of()
    go_on(hierarchy, events=20, across_ms=39.0)
    go_on(hierarchy, events=1, across_ms=1000.0, action=action)
    assert hierarchy.every == every


def test_one_node_is_always_crossed() -> None:
    """What the exchange costs is then the anchor's concern."""
    hierarchy = hierarchy_of(3, 3)
    assert go_on(hierarchy, events=30, across_ms=1000.0) == [True] * 30


def test_inside_a_node_others_weigh_nothing() -> None:
    """Each node makes an average of its own."""
    hierarchy = hierarchy_of()
    own = [1.0, 3.0, 5.0, 7.0]
    assert hierarchy.weights(own, 1, crosses=False) == [1.0, 3.0, 0.0, 0.0]
    assert hierarchy.weights(own, 2, crosses=False) == [0.0, 0.0, 5.0, 7.0]


@given(
    windows=st.lists(st.tuples(*[st.integers(0, 50)] * 5), min_size=1, max_size=6),
    nodes=st.lists(st.integers(0, 2), min_size=5, max_size=5),
)
def test_a_node_weighs_what_its_ranks_did_since_the_last_crossing(
    windows: list[tuple[int, ...]], nodes: list[int]
) -> None:
    """However the work was spread over the windows; and no rank that did nothing is left to one."""
    hierarchy = hierarchy_of(*nodes)
    for window in windows[:-1]:
        hierarchy.report(
            window, crossed=False, transfer_ms=0.0, window_ms=1.0, action=GuardAction.STABLE
        )
    weights = hierarchy.weights(windows[-1], 0, crosses=True)
    for node in set(nodes):
        ranks = [rank for rank in range(5) if nodes[rank] == node]
        total = sum(window[rank] for window in windows for rank in ranks)
        assert sum(weights[rank] for rank in ranks) == pytest.approx(total)
        in_window = sum(windows[-1][rank] for rank in ranks)
        for rank in ranks if in_window else ():
            assert weights[rank] == pytest.approx(total * windows[-1][rank] / in_window)


def test_weights_are_left_alone_where_every_event_crosses() -> None:
    """To the last bit."""
    own = [0.1, 3.0, 5.0, 0.7]
    hierarchy = hierarchy_of()
    hierarchy.report(own, crossed=True, transfer_ms=0, window_ms=1, action=GuardAction.STABLE)
    assert hierarchy.weights(own, 0, crosses=True) == own


def test_crossing_ahead_of_time_begins_anew() -> None:
    """At a validation, say: the next one follows after as many events as ever."""
    hierarchy = hierarchy_of()
    go_on(hierarchy, events=40, across_ms=39.0)
    assert hierarchy.every == 4
    while hierarchy.has_crossed:
        go_on(hierarchy, events=1, across_ms=39.0)
    hierarchy.report(
        [1.0] * 4, crossed=True, transfer_ms=0.0, window_ms=WINDOW_MS, action=GuardAction.STABLE
    )
    assert go_on(hierarchy, events=4, across_ms=39.0) == [False, False, False, True]


def test_state_continues() -> None:
    """In JSON; not where there is only one node left."""
    hierarchy = hierarchy_of()
    go_on(hierarchy, events=20, across_ms=39.0)
    state = json.loads(json.dumps(hierarchy.state_dict()))
    for nodes, every in ([0, 1], 4), ([0, 0], 1):
        other = hierarchy_of(*nodes)
        other.load_state_dict(state)
        assert (other.every, other.has_crossed) == (every, True)


def test_reset_forgets() -> None:
    """As if nothing had been measured."""
    hierarchy = hierarchy_of()
    go_on(hierarchy, events=20, across_ms=39.0)
    hierarchy.reset()
    assert (hierarchy.every, hierarchy.crosses_next) == (1, True)


def test_windows_without_work_say_nothing() -> None:
    """An epoch may end with one, and costs have no meaning beside it."""
    hierarchy = hierarchy_of()
    for _ in range(5):
        hierarchy.report(
            [0.0] * 4, crossed=True, transfer_ms=9.0, window_ms=0.0, action=GuardAction.STABLE
        )
    assert hierarchy.every == 1


def test_repr_shows_nodes_and_distance() -> None:
    """For the debug log."""
    assert repr(hierarchy_of()) == "Hierarchy(nodes=[0, 0, 1, 1], every=1)"
    assert math.isfinite(hierarchy_of().every)
