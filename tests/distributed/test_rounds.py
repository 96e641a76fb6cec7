"""The life of a rank between and at events."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from lightning_elche.control.controller import Controller
from lightning_elche.control.events import AveragingEvent
from lightning_elche.control.requests import Requests, StopCause
from lightning_elche.distributed.averager import Averager
from lightning_elche.distributed.control_store import ControlStore
from lightning_elche.distributed.replica_exchange import ReplicaExchange
from lightning_elche.distributed.rounds import Rounds
from lightning_elche.distributed.timing import HostTimer
from lightning_elche.exceptions import PeerLost, RankFailed, RankMismatch
from tests.distributed.threads import FakeClock, FakeGroup, outcomes_of, run_ranks, stores_of

STEP_S = (0.01, 0.04)  # of rank 0 and rank 1


@dataclass
class Rank:
    """One rank with a parameter of its own and a clock that its steps advance."""

    rounds: Rounds
    parameter: torch.Tensor
    clock: FakeClock
    store: ControlStore
    step_s: float

    def train(self, steps: int, *, is_optimizer_step: bool = True) -> None:
        """Make steps of four samples."""
        for _ in range(steps):
            self.rounds.window.begin_step()
            self.clock.now += self.step_s
            self.rounds.window.end_step(samples=4, is_optimizer_step=is_optimizer_step)


def ranks_of(
    world_size: int = 2, *, timeout_s: float = 10.0, nodes: list[int] | None = None
) -> list[Rank]:
    """Return ranks that hold their number as parameter."""
    group = FakeGroup(world_size, nodes=nodes)
    ranks = []
    for number, store in enumerate(stores_of(world_size)):
        parameter, clock = torch.tensor([float(number)]), FakeClock()
        rounds = Rounds(
            controller=Controller(world_size, nodes=nodes),
            collectives=group.of(number),
            store=store,
            replica=ReplicaExchange(Averager([parameter], [], group.of(number))),
            timer=HostTimer(clock),
            timeout_s=timeout_s,
        )
        ranks.append(Rank(rounds, parameter, clock, store, STEP_S[min(number, 1)]))
    return ranks


def meet(ranks: list[Rank], **flags: Any) -> list[AveragingEvent]:
    """Let all ranks average and return each one's event."""
    options = {"is_drained": False, **flags}
    return run_ranks(len(ranks), lambda rank: ranks[rank].rounds.average(**options))


def measured_ranks() -> list[Rank]:
    """Return two ranks after one window: 40 steps of 10 ms and 10 steps of 40 ms."""
    ranks = ranks_of()
    ranks[0].train(40)
    ranks[1].train(10)
    meet(ranks)
    return ranks


def test_event_is_not_due_before_the_own_steps_are_made() -> None:
    """A rank does not agree before it has reached its count."""
    rank = ranks_of()[0]
    rank.train(9)
    assert not rank.rounds.is_due()
    assert rank.store.add("agreed/0", 0) == 0


def test_event_is_due_when_the_last_rank_agrees() -> None:
    """The rank that agreed first goes on training until the last one has."""
    fast, slow = ranks_of()
    fast.train(10)
    answers = [fast.rounds.is_due()]
    slow.train(10)
    answers += [slow.rounds.is_due(), fast.rounds.is_due()]
    assert answers == [False, True, True]


def test_rank_agrees_once_however_often_it_asks() -> None:
    """Asking again does not count as another rank."""
    rank = ranks_of()[0]
    rank.train(10)
    for _ in range(3):
        assert not rank.rounds.is_due()
    assert rank.store.add("agreed/0", 0) == 1


def test_rank_that_agreed_does_not_meet_while_it_accumulates() -> None:
    """Agreement holds, but the rank finishes its accumulation first."""
    fast, slow = ranks_of()
    fast.train(10)
    fast.rounds.is_due()
    slow.train(10)
    slow.rounds.is_due()
    fast.train(1, is_optimizer_step=False)
    answers = [fast.rounds.is_due()]
    fast.train(1)
    assert [*answers, fast.rounds.is_due()] == [False, True]


def test_measured_rank_agrees_one_slow_step_early() -> None:
    """After calibration the fast rank agrees after 360 of the planned 400 ms."""
    fast = measured_ranks()[0]
    fast.train(35)
    fast.rounds.is_due()
    posted = [fast.store.add("agreed/1", 0)]
    fast.train(1)
    fast.rounds.is_due()
    assert [*posted, fast.store.add("agreed/1", 0)] == [0, 1]


def test_rank_near_the_planned_end_waits_for_the_slowest() -> None:
    """The moment of patience counts as waiting."""
    fast, _ = measured_ranks()
    fast.train(40)
    assert not fast.rounds.is_due()
    assert fast.rounds.window.waited_s >= 0.002  # 10 ** 2 / (10 + 40) ms


def test_rank_without_patience_does_not_wait() -> None:
    """Before the planned end a rank that agreed goes on at once."""
    fast, _ = measured_ranks()
    fast.train(37)
    assert not fast.rounds.is_due()
    assert fast.rounds.window.waited_s < 0.002


def test_drained_rank_waits_until_the_others_agree() -> None:
    """A rank without data agrees at once and returns when the last one has agreed."""
    fast, slow = ranks_of()
    slow.train(10)

    def run(rank: int) -> AveragingEvent | None:
        if rank == 0:
            return fast.rounds.wait_for_event()
        return slow.rounds.meet_if_due(is_drained=False)

    first, second = run_ranks(2, run)
    assert first is not None
    assert second is not None
    assert [report.is_drained for report in first.reports] == [True, False]


def test_drained_rank_gives_up_after_the_timeout() -> None:
    """A rank that nobody joins raises an error that names the missing one."""
    rank = ranks_of(timeout_s=0.02)[0]
    with pytest.raises(PeerLost, match=r"Ranks \[1\] did not agree"):
        rank.rounds.wait_for_event()


def test_training_rank_hears_of_a_failure() -> None:
    """A failure elsewhere is raised at a step boundary, long before the next event."""
    fast, slow = ranks_of()
    slow.store.post_failure(1, "ValueError: no")
    fast.train(1)
    with pytest.raises(RankFailed, match="Rank 1 failed with ValueError: no"):
        fast.rounds.is_due()


def test_drained_rank_hears_of_a_failure() -> None:
    """A failure elsewhere ends the wait of a rank without data."""
    fast, slow = ranks_of()
    slow.store.post_failure(1, "ValueError: no")
    with pytest.raises(RankFailed):
        fast.rounds.wait_for_event()


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
    same = [replace(event, **own) for event in meet(ranks)]
    assert same[0] == same[1] == same[2]


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


def test_rank_that_wants_to_end_the_run_hurries_the_others() -> None:
    """All meet after the present step of each, long before the planned end of the window."""
    ranks = ranks_of()
    for rank in ranks:
        rank.train(1)
    first, second = (rank.rounds for rank in ranks)
    assert not first.is_due(requests=Requests(stop=StopCause.SIGTERM))
    second._store.raise_if_failed(at_once=True)  # what it does every half second
    assert second.is_due()
    assert first.is_due()


def test_rank_without_data_hears_of_a_signal_while_it_waits() -> None:
    """It hurries the others then, and does not wait for the end of their window."""
    ranks = ranks_of()
    ranks[1].train(1)
    calls = itertools.count()

    def ask() -> Requests:
        return Requests(stop=StopCause.SIGTERM if next(calls) > 1 else StopCause.NONE)

    def act(rank: int) -> AveragingEvent:
        if rank == 0:
            return ranks[0].rounds.wait_for_event(ask=ask)
        while (event := ranks[1].rounds.meet_if_due(is_drained=False)) is None:
            ranks[1].store.raise_if_failed(at_once=True)
        return event

    assert [event.stop for event in run_ranks(2, act)] == [StopCause.SIGTERM] * 2


def test_rank_waits_no_longer_than_it_was_told() -> None:
    """A rank that ends the run does not wait for ever for one that hangs."""
    with pytest.raises(PeerLost, match=r"did not agree to average within 0\.1 seconds"):
        ranks_of()[0].rounds.wait_for_event(wait_s=0.1)


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


def test_epoch_metrics_are_equal_on_every_rank() -> None:
    """Every rank closes the epoch with the same numbers."""
    ranks = measured_ranks()
    one, other = run_ranks(2, lambda rank: ranks[rank].rounds.close_epoch())
    assert one == other == ranks[0].rounds.epoch_metrics
    assert (one.batches, one.samples, one.events) == ((40, 10), (160, 40), 1)


def test_epoch_counts_start_anew_with_the_next_epoch() -> None:
    """Batches are counted by epoch, steps over the whole run."""
    ranks = measured_ranks()
    outcomes_of(2, lambda rank: ranks[rank].rounds.begin_epoch(1))
    for rank in ranks:
        rank.train(5)
    event = meet(ranks)[0]
    assert (event.epoch, event.epoch_batches, event.global_step) == (1, 10, 60)


def test_epoch_is_complete_when_all_ranks_are_drained() -> None:
    """An event tells that nobody has data left."""
    ranks = ranks_of()
    assert not meet(ranks)[0].is_epoch_complete
    assert meet(ranks, is_drained=True)[0].is_epoch_complete


@pytest.mark.parametrize(("flags", "agreed"), [((False, False), False), ((False, True), True)])
def test_flag_is_set_for_all_when_one_rank_sets_it(flags: tuple[bool, ...], agreed: bool) -> None:
    """Outside of events ranks agree on a flag at the same point."""
    ranks = ranks_of()
    answers = run_ranks(2, lambda rank: any(ranks[rank].rounds.gather(flags[rank])))
    assert answers == [agreed, agreed]


def test_state_round_trip_continues_with_the_same_plan() -> None:
    """A restored run plans as the one that was saved, and counts on."""
    saved = json.loads(json.dumps(measured_ranks()[0].rounds.state_dict()))
    rounds = ranks_of()[1].rounds
    rounds.load_state_dict(saved)
    assert (rounds.global_step, rounds.plan.index) == (50, 1)
    assert rounds.plan == measured_ranks()[0].rounds.plan


def test_losses_reach_the_epoch_metrics() -> None:
    """The epoch's loss is the mean over the batches of all ranks."""
    ranks = ranks_of()
    for rank, losses in zip(ranks, ((1.0, 1.0, 1.0), (5.0,)), strict=True):
        for loss in losses:
            rank.rounds.window.add_loss(torch.tensor(loss))
        rank.train(len(losses))
    meet(ranks, is_drained=True)
    metrics = run_ranks(2, lambda rank: ranks[rank].rounds.close_epoch())
    assert metrics[0].loss == 2.0


def test_three_threads_train_and_meet_without_a_coordinator() -> None:
    """Ranks that only ask `is_due` after each step meet five times and end bit-equal."""
    ranks = ranks_of(3)

    def run(rank: int) -> list[int]:
        own, steps = ranks[rank], []
        while len(steps) < 5:
            own.train(1)
            if own.rounds.is_due():
                steps.append(own.rounds.average(is_drained=False).global_step)
        return steps

    counts = run_ranks(3, run)
    assert counts[0] == counts[1] == counts[2]
    assert len({rank.parameter.item() for rank in ranks}) == 1


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
