"""Averaging while the ranks train on."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch

from lightning_elche.control.controller import Controller
from lightning_elche.control.events import AveragingEvent
from lightning_elche.distributed.averager import Averager
from lightning_elche.distributed.replica_exchange import ReplicaExchange
from lightning_elche.distributed.snapshot_rounds import SnapshotRounds
from lightning_elche.distributed.timing import HostTimer
from lightning_elche.exceptions import PeerLost, RankFailed
from tests.distributed.threads import FakeClock, FakeGroup, run_ranks, stores_of

WITHIN_S = 10.0


class Rank:
    """One rank whose parameter grows by 1 with every step of 10 ms."""

    def __init__(self, number: int, group: FakeGroup, store: object) -> None:
        self.parameter = torch.tensor([100.0 * number])
        self.clock = FakeClock()
        self.store = store
        self.rounds = SnapshotRounds(
            controller=Controller(2),
            collectives=group.of(number),
            store=store,  # type: ignore[arg-type]
            replica=ReplicaExchange(Averager([self.parameter], [], group.of(number))),
            timer=HostTimer(self.clock),
            timeout_s=0.5,
            snapshot_timeout_s=0.1,
        )

    def train(self, steps: int) -> None:
        """Make steps of four samples."""
        for _ in range(steps):
            self.rounds.window.begin_step()
            self.clock.now += 0.01
            self.parameter += 1.0
            self.rounds.window.end_step(samples=4, is_optimizer_step=True)

    def go_on(self) -> AveragingEvent | None:
        """Do what follows a step."""
        return self.rounds.meet_if_due(is_drained=False)


def ranks_of_two(*, timeout_s: float = 20.0) -> list[Rank]:
    """Return two ranks, at 0 and at 100."""
    group = FakeGroup(2, timeout_s=timeout_s)
    return [Rank(number, group, store) for number, store in enumerate(stores_of(2))]


def until(condition: Callable[[], AveragingEvent | None]) -> AveragingEvent:
    """Return what `condition` returns once it is not `None`."""
    deadline = time.monotonic() + WITHIN_S
    while (event := condition()) is None:
        assert time.monotonic() < deadline
    return event


def ranks_with_snapshots() -> list[Rank]:
    """Return two ranks after 10 steps, at 10 and at 110, whose snapshots are on their way."""
    ranks = ranks_of_two()
    for rank in ranks:
        rank.train(10)
    assert ranks[0].rounds.is_due() is False  # agrees first
    assert [rank.go_on() for rank in reversed(ranks)] == [None, None]
    return ranks


def test_steps_made_meanwhile_are_kept() -> None:
    """The average of the snapshots is 60; the steps since are added on top of it."""
    ranks = ranks_with_snapshots()
    ranks[0].train(3)
    run_ranks(2, lambda rank: until(ranks[rank].go_on))
    assert [rank.parameter.item() for rank in ranks] == [63.0, 60.0]


def test_counters_keep_the_steps_made_meanwhile() -> None:
    """The event counts what the snapshots held, the next window what came after."""
    ranks = ranks_with_snapshots()
    ranks[0].train(3)
    first, second = run_ranks(2, lambda rank: until(ranks[rank].go_on))
    assert [report.batches for report in first.reports] == [10, 10]
    assert (first.global_step, first.is_aligned) == (20, False)
    assert first.plan == second.plan
    assert [rank.rounds.window.batches for rank in ranks] == [3, 0]


def test_ranks_can_still_meet_at_once() -> None:
    """After an event in the background all ranks average what they did since."""
    ranks = ranks_with_snapshots()
    ranks[0].train(3)
    run_ranks(2, lambda rank: until(ranks[rank].go_on))
    events = run_ranks(2, lambda rank: ranks[rank].rounds.average(is_drained=False))
    assert [event.is_aligned for event in events] == [True, True]
    assert [rank.parameter.item() for rank in ranks] == [63.0, 63.0]  # rank 1 did nothing since


def test_drained_rank_waits_for_the_event() -> None:
    """A rank without data takes part with weight 0 and adopts the average."""
    ranks = ranks_of_two()
    ranks[0].train(10)

    def run(rank: int) -> AveragingEvent:
        return until(ranks[0].go_on) if rank == 0 else ranks[1].rounds.wait_for_event()

    events = run_ranks(2, run)
    assert [report.weight for report in events[0].reports] == [40.0, 0.0]
    assert [rank.parameter.item() for rank in ranks] == [10.0, 10.0]


def test_late_snapshot_drops_the_attempt_and_is_repeated() -> None:
    """Nothing is averaged at the first attempt; at the second all steps made so far are."""
    ranks = ranks_of_two()
    for rank in ranks:
        rank.train(10)
    ranks[0].go_on()  # agrees
    ranks[1].rounds.is_due()  # agrees, and falls asleep
    until_dropped = time.monotonic() + 0.3
    while time.monotonic() < until_dropped:
        ranks[0].go_on()
    ranks[0].train(2)
    events = run_ranks(2, lambda rank: until(ranks[rank].go_on))
    assert repr(events[0].reports) == repr(events[1].reports)
    assert ranks[0].rounds.describe()["dropped"] == ranks[1].rounds.describe()["dropped"]


def test_rank_that_never_hands_in_is_lost() -> None:
    """Attempts end with an error after the timeout."""
    ranks = ranks_of_two()
    for rank in ranks:
        rank.train(10)
    ranks[1].rounds.is_due()
    with pytest.raises(PeerLost, match="snapshot_timeout_s"):
        until(ranks[0].go_on)


def test_failed_exchange_is_raised_on_the_training_thread() -> None:
    """A peer that is lost during the exchange does not go unnoticed."""
    ranks = ranks_of_two(timeout_s=0.2)
    for rank in ranks:
        rank.train(10)
        rank.go_on()
    with pytest.raises(PeerLost, match="did not arrive"):
        until(ranks[0].go_on)  # the other one has not looked again


def test_failure_elsewhere_is_heard_between_events() -> None:
    """A rank that trains hears of a failure at its next step boundary."""
    ranks = ranks_of_two()
    ranks[1].rounds._store.post_failure(1, "ValueError: no")
    with pytest.raises(RankFailed, match="Rank 1 failed"):
        ranks[0].go_on()
