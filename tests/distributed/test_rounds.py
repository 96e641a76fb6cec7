"""The life of a rank between events: when it agrees to meet, waits, and gives up."""

from __future__ import annotations

import itertools

import pytest

from lightning_elche.control.events import AveragingEvent
from lightning_elche.control.requests import Requests, StopCause
from lightning_elche.exceptions import PeerLost, RankFailed
from tests.distributed.meeting import measured_ranks, ranks_of
from tests.distributed.threads import run_ranks


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


@pytest.mark.parametrize(("flags", "agreed"), [((False, False), False), ((False, True), True)])
def test_flag_is_set_for_all_when_one_rank_sets_it(flags: tuple[bool, ...], agreed: bool) -> None:
    """Outside of events ranks agree on a flag at the same point."""
    ranks = ranks_of()
    answers = run_ranks(2, lambda rank: any(ranks[rank].rounds.gather(flags[rank])))
    assert answers == [agreed, agreed]


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
