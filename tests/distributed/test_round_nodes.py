"""Events inside of nodes and across them."""

from __future__ import annotations

from lightning_elche.control.events import AveragingEvent
from tests.distributed.meeting import Rank, meet, ranks_of
from tests.distributed.threads import run_ranks


def meet_on_time(ranks: list[Rank], *, steps: list[int]) -> list[AveragingEvent]:
    """Let all ranks train and meet as planned, drained so that each agrees at once."""
    for rank, own_steps in zip(ranks, steps, strict=True):
        rank.train(own_steps)
    return run_ranks(len(ranks), lambda rank: ranks[rank].rounds.wait_for_event())


def spaced_ranks() -> list[Rank]:
    """Return ranks on nodes 0, 0 and 1 whose next event stays inside nodes."""
    ranks = ranks_of(3, nodes=[0, 0, 1])
    for rank in ranks:
        hierarchy = rank.rounds.controller.hierarchy
        rank.rounds.controller.hierarchy.load_state_dict({"every": 2})
        assert not hierarchy.crosses_next
        rank.rounds.load_state_dict(rank.rounds.state_dict())  # for the plan
    return ranks


def test_nodes_average_among_themselves_and_then_with_others() -> None:
    """Rank 2 is alone on its node; across nodes each weighs what it did in both windows."""
    ranks = spaced_ranks()
    events = meet_on_time(ranks, steps=[1, 3, 8])
    assert [rank.parameter.item() for rank in ranks] == [0.75, 0.75, 2.0]
    assert not any(event.is_aligned or event.crossed_nodes for event in events)
    events = meet_on_time(ranks, steps=[2, 2, 0])
    assert [rank.parameter.item() for rank in ranks] == [1.375] * 3
    assert all(event.is_aligned and event.crossed_nodes for event in events)


def test_all_nodes_meet_where_all_ranks_must_be_equal() -> None:
    """Whatever the plan says, and none of the work before is forgotten."""
    ranks = spaced_ranks()
    meet_on_time(ranks, steps=[1, 3, 8])
    ranks[0].train(4)
    ranks[2].train(4)
    events = meet(ranks)
    assert all(event.is_aligned for event in events)
    assert [rank.parameter.item() for rank in ranks] == [1.5] * 3


def test_node_that_did_nothing_has_no_average() -> None:
    """The other one does not wait for it."""
    ranks = spaced_ranks()
    events = meet_on_time(ranks, steps=[0, 0, 5])
    assert [rank.parameter.item() for rank in ranks] == [0.0, 1.0, 2.0]
    assert [event.exchanged_bytes > 0 for event in events] == [False, False, True]
