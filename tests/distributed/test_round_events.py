"""What an event does on all ranks, and what it tells them."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

from lightning_elche.control.requests import Requests, StopCause
from lightning_elche.exceptions import PeerLost, RankMismatch
from tests.distributed.meeting import measured_ranks, meet, ranks_of
from tests.distributed.threads import FakeGroup, outcomes_of, run_ranks


def test_parameters_are_averaged_by_weight() -> None:
    """Rank 0 holds 0.0 with 160 samples, rank 1 holds 1.0 with 40: the average is 0.2."""
    fast, slow = measured_ranks()
    assert fast.parameter.item() == pytest.approx(0.2)
    assert torch.equal(fast.parameter, slow.parameter)


def test_event_tells_what_all_ranks_did() -> None:
    """The reports of all ranks, their steps and the next plan reach every rank."""
    ranks = ranks_of()
    ranks[0].train(40)
    ranks[1].train(10)
    events = meet(ranks)
    assert [r.batches for r in events[0].reports] == [40, 10]
    assert (events[0].index, events[0].global_step, events[0].epoch_batches) == (0, 50, 50)
    assert (events[0].plan.index, events[0].plan.local_steps) == (1, (40, 10))


def test_event_is_equal_on_every_rank_but_for_own_costs() -> None:
    """Ranks differ only in how long they waited and exchanged."""
    ranks = ranks_of(3)
    for rank in ranks:
        rank.train(10)
    own = {"wait_ms": 0.0, "transfer_ms": 0.0, "exchanged_ns": 0}
    same = {repr(replace(event, **own)) for event in meet(ranks)}
    assert len(same) == 1


def test_plans_of_all_ranks_are_equal_after_events() -> None:
    """Every rank plans the same without being told."""
    fast, slow = measured_ranks()
    assert fast.rounds.plan == slow.rounds.plan
    assert fast.rounds.controller.state_dict() == slow.rounds.controller.state_dict()


def test_window_starts_anew_after_an_event() -> None:
    """Counts and times of one window do not leak into the next."""
    fast = measured_ranks()[0]
    assert (fast.rounds.window.batches, fast.rounds.window.optimizer_steps) == (0, 0)
    assert not fast.rounds.is_due()


def test_costs_travel_with_the_next_report() -> None:
    """What an event cost a rank is known to all at the one after it."""
    ranks = ranks_of()
    first = meet(ranks)
    second = meet(ranks)
    assert [r.wait_ms for r in first[0].reports] == [0.0, 0.0]
    assert [r.wait_ms for r in second[0].reports] == [event.wait_ms for event in first]
    assert [r.transfer_ms for r in second[0].reports] == [event.transfer_ms for event in first]


def test_divergence_travels_with_the_next_report() -> None:
    """Ranks at 0 and 2 average to 1, each a relative distance of 1 away."""
    ranks = ranks_of()
    ranks[1].parameter.fill_(2.0)
    for rank in ranks:
        rank.train(10)
    meet(ranks)
    assert meet(ranks)[0].divergence == 1.0


def test_nothing_is_exchanged_without_any_weight() -> None:
    """When no rank has trained, parameters stay as they are."""
    ranks = ranks_of()
    event = meet(ranks)[0]
    assert event.exchanged_bytes == 0
    assert [rank.parameter.item() for rank in ranks] == [0.0, 1.0]


def test_rank_without_steps_adopts_the_average() -> None:
    """A drained rank of weight 0 takes over what the others have, whatever it holds."""
    ranks = ranks_of(3)
    ranks[0].parameter.fill_(math.nan)
    for rank in ranks[1:]:
        rank.train(10)
    ranks[1].parameter.fill_(3.0)
    assert meet(ranks)[0].exchanged_bytes == 4
    assert [rank.parameter.item() for rank in ranks] == [2.5] * 3  # of 3.0 and 2.0


def test_ranks_in_different_epochs_are_refused() -> None:
    """Counts of different epochs would be mixed up, so all ranks raise."""
    ranks = ranks_of()
    outcomes_of(2, lambda rank: ranks[rank].rounds.begin_epoch(3 * rank))
    results = outcomes_of(2, lambda rank: ranks[rank].rounds.average(is_drained=False))
    assert [type(result) for result in results] == [RankMismatch, RankMismatch]
    assert "got [0, 3] by rank" in str(results[0])


def test_request_of_one_rank_reaches_all() -> None:
    """A stop or a signal on one rank is known to every rank after the event."""
    ranks = ranks_of()
    asked = Requests(should_stop=True, stop=StopCause.SIGTERM)
    events = run_ranks(
        2,
        lambda rank: ranks[rank].rounds.average(
            is_drained=False, requests=asked if rank else Requests()
        ),
    )
    assert [(event.should_stop, event.stop) for event in events] == [(True, StopCause.SIGTERM)] * 2


def test_rank_that_abstains_adopts_the_average() -> None:
    """It is in the midst of a step, so that only the others count."""
    ranks = ranks_of()
    for rank in ranks:
        rank.train(10)
    ranks[0].parameter.fill_(math.nan)
    requests = [Requests(abstains=True), Requests()]
    run_ranks(2, lambda rank: ranks[rank].rounds.average(is_drained=False, requests=requests[rank]))
    assert ranks[0].parameter.item() == ranks[1].parameter.item() == 1.0


def test_missing_rank_is_an_error_and_no_hang() -> None:
    """A rank that meets nobody raises within the timeout of the collectives."""
    rank = ranks_of()[0]
    rank.rounds._collectives = FakeGroup(2, timeout_s=0.02).of(0)
    with pytest.raises(PeerLost):
        rank.rounds.average(is_drained=False)


def test_state_round_trip_continues_with_the_same_plan() -> None:
    """A restored run plans as the one that was saved, and counts on."""
    saved = json.loads(json.dumps(measured_ranks()[0].rounds.state_dict()))
    rounds = ranks_of()[1].rounds
    rounds.load_state_dict(saved)
    assert (rounds.global_step, rounds.plan.index) == (50, 1)
    assert rounds.plan == measured_ranks()[0].rounds.plan
