"""Dealing an epoch's batches to ranks."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributed import HashStore

from lightning_elche.control.chunks import ChunkConfig
from lightning_elche.control.controller import Controller
from lightning_elche.control.reports import Report
from lightning_elche.control.schedule import Plan
from lightning_elche.data.agreed_progress import gather_progress
from lightning_elche.data.dealer import Dealer
from lightning_elche.data.epoch_progress import EpochProgress
from lightning_elche.distributed.control_store import ControlStore
from lightning_elche.exceptions import RankMismatch
from tests.distributed.threads import FakeGroup, run_ranks


def plan_of(*ms: float) -> Plan:
    """Return the plan after one window in which steps took `ms` on the ranks."""
    reports = [Report(batches=10, compute_ms=10.0 * value) for value in ms]
    return Controller(len(ms)).report(reports)


def dealers_of(
    plan: Plan, *, limit: Callable[[int], int] = lambda total: total, **config: Any
) -> list[Dealer]:
    """Return one dealer per rank of `plan`, on one in-process store."""
    shared = HashStore()
    return [
        Dealer(
            ControlStore(shared, "run"),
            config=ChunkConfig(**config),
            rank=rank,
            plan=lambda: plan,
            limit=limit,
        )
        for rank in range(len(plan.local_steps))
    ]


def batches_of(total: int) -> list[list[int]]:
    """Return batches of two samples that tell their number."""
    return [[2 * number, 2 * number + 1] for number in range(total)]


def open_all(dealers: Sequence[Dealer], total: int, *, epoch: int = 0) -> None:
    """Open an epoch on every rank."""
    for dealer in dealers:
        dealer.open(epoch, batches_of(total))


def train(
    dealers: Sequence[Dealer], step_ms: Sequence[float], *, ahead: int = 1
) -> list[list[int]]:
    """Let ranks of these speeds train until they are drained; return each one's batch numbers."""
    streams = [dealer.deal() for dealer in dealers]
    ready: list[list[int]] = [[] for _ in dealers]
    trained: list[list[int]] = [[] for _ in dealers]
    ends = [(0.0, rank) for rank in range(len(dealers))]
    while ends:
        now, rank = heapq.heappop(ends)
        if now > 0.0:
            trained[rank].append(ready[rank].pop(0))
            dealers[rank].consume()
        missing = ahead + 1 - len(ready[rank])
        ready[rank] += [batch[0] // 2 for batch in itertools.islice(streams[rank], missing)]
        if ready[rank]:
            heapq.heappush(ends, (now + step_ms[rank], rank))
    return trained


def flat(parts: Sequence[Sequence[int]]) -> list[int]:
    """Return all numbers in order."""
    return sorted(itertools.chain.from_iterable(parts))


@pytest.mark.parametrize("ahead", [0, 1, 8])
@pytest.mark.parametrize("plan", [Controller(3).plan, plan_of(10.0, 30.0, 100.0)])
def test_every_batch_is_dealt_once_at_speeds_of_1_3_10(plan: Plan, ahead: int) -> None:
    """Three ranks share an epoch without loss, measured or not, however far they look ahead."""
    dealers = dealers_of(plan)
    open_all(dealers, 200)
    assert flat(train(dealers, (10.0, 30.0, 100.0), ahead=ahead)) == list(range(200))


@settings(max_examples=60)
@given(
    ms=st.lists(st.floats(min_value=1.0, max_value=16.0), min_size=2, max_size=4),
    planned=st.lists(st.floats(min_value=1.0, max_value=16.0), min_size=4, max_size=4),
    extra=st.integers(min_value=0, max_value=80),
    ahead=st.integers(min_value=0, max_value=6),
)
def test_every_batch_is_dealt_once_for_any_speeds(
    ms: list[float], planned: list[float], extra: int, ahead: int
) -> None:
    """Even where speeds are not those of the plan, each batch is trained once."""
    dealers = dealers_of(plan_of(*planned[: len(ms)]))
    total = len(ms) + extra
    open_all(dealers, total)
    assert flat(train(dealers, ms, ahead=ahead)) == list(range(total))


def test_every_batch_is_dealt_once_to_threads() -> None:
    """Ranks that claim at the same time share an epoch without loss."""
    dealers = dealers_of(Controller(3).plan)

    def run(rank: int) -> list[int]:
        dealers[rank].open(0, batches_of(300))
        return [batch[0] // 2 for batch in dealers[rank].deal() if dealers[rank].consume()]

    assert flat(run_ranks(3, run)) == list(range(300))


def test_shares_follow_the_speeds() -> None:
    """A rank ten times as fast trains about ten times as many batches."""
    dealers = dealers_of(plan_of(10.0, 100.0))
    open_all(dealers, 550)
    fast, slow = train(dealers, (10.0, 100.0))
    assert 8.0 <= len(fast) / len(slow) <= 12.5


def test_first_batch_of_a_rank_is_its_reserved_one() -> None:
    """Rank r begins with batch r, whoever comes first."""
    dealers = dealers_of(Controller(3).plan)
    open_all(dealers, 9)
    assert [next(dealer.deal()) for dealer in dealers] == [[0, 1], [2, 3], [4, 5]]


def test_one_batch_per_rank_is_enough() -> None:
    """In the shortest epoch every rank trains its reserved batch."""
    dealers = dealers_of(Controller(2).plan)
    open_all(dealers, 2)
    assert train(dealers, (1.0, 1.0)) == [[0], [1]]


@pytest.mark.parametrize("trained", [0, 1, 3])
def test_iterating_again_starts_with_what_was_not_consumed(trained: int) -> None:
    """Batches that were given out ahead of time come again, in order, and none is lost."""
    dealer, other = dealers_of(Controller(2).plan)
    open_all([dealer, other], 30)
    first = list(itertools.islice(dealer.deal(), 5))  # in the midst of a chunk
    for _ in range(trained):
        dealer.consume()
    again = dealer.deal()
    assert list(itertools.islice(again, 5 - trained)) == first[trained:]


def test_iterating_thrice_starts_with_the_same_batches() -> None:
    """However often it starts again, a rank gets what it did not train, once."""
    dealer = dealers_of(Controller(2).plan)[0]
    dealer.open(0, batches_of(30))
    starts = [list(itertools.islice(dealer.deal(), 3)) for _ in range(3)]
    assert starts == [[[0, 1], [4, 5], [6, 7]]] * 3


def test_iterating_again_loses_nothing_and_doubles_nothing() -> None:
    """After a second start, what was trained before and after is the whole epoch."""
    dealers = dealers_of(Controller(2).plan)
    open_all(dealers, 40)
    list(itertools.islice(dealers[0].deal(), 7))
    dealers[0].consume()  # batch 0
    assert flat([[0], *train(dealers, (1.0, 3.0))]) == list(range(40))


def test_limit_shrinks_the_epoch() -> None:
    """Only the first batches of the list are dealt; the others are still counted as available."""
    dealers = dealers_of(Controller(2).plan, limit=lambda total: total // 2)
    open_all(dealers, 20)
    assert (dealers[0].total, dealers[0].available) == (10, 20)
    assert flat(train(dealers, (1.0, 1.0))) == list(range(10))


def test_next_epoch_is_dealt_anew() -> None:
    """An epoch left early has no effect on the one after it."""
    dealers = dealers_of(Controller(2).plan)
    open_all(dealers, 20)
    for dealer in dealers:
        list(itertools.islice(dealer.deal(), 3))
    open_all(dealers, 24, epoch=1)
    assert [dealers[0].is_open(0), dealers[0].is_open(1)] == [False, True]
    assert flat(train(dealers, (1.0, 2.0))) == list(range(24))


def test_samples_of_a_batch_are_counted_when_it_was_trained() -> None:
    """A short last batch counts for less."""
    dealers = dealers_of(Controller(2).plan)
    for dealer in dealers:
        dealer.open(0, [[0, 1], [2, 3], [4]])
    stream = dealers[0].deal()
    assert [next(stream), next(stream)] == [[0, 1], [4]]
    assert [dealers[0].consume().samples, dealers[0].consume().samples] == [2, 1]


def test_index_without_a_batch_counts_as_one_sample() -> None:
    """Where batching is disabled the list holds indices."""
    dealers = dealers_of(Controller(2).plan)
    for dealer in dealers:
        dealer.open(0, [7, 8])
    assert (next(dealers[1].deal()), dealers[1].consume().samples) == (8, 1)


def test_different_lists_are_refused() -> None:
    """Ranks whose samplers disagree are told so by an error that names the remedy."""
    one, other = dealers_of(Controller(2).plan)
    one.open(0, batches_of(10))
    with pytest.raises(RankMismatch, match="seed_everything") as mismatch:
        other.open(0, batches_of(10)[::-1])
    assert mismatch.value.what == "data"


def test_lists_of_different_length_are_refused() -> None:
    """A rank that sees less data than another does not train."""
    one, other = dealers_of(Controller(2).plan)
    one.open(0, batches_of(10))
    with pytest.raises(RankMismatch, match="in epoch 0"):
        other.open(0, batches_of(9))


def test_lists_are_compared_in_every_epoch() -> None:
    """Samplers that disagree only later are found when that epoch opens."""
    one, other = dealers_of(Controller(2).plan)
    open_all([one, other], 10)
    one.open(1, batches_of(10))
    with pytest.raises(RankMismatch, match="in epoch 1"):
        other.open(1, batches_of(10)[::-1])


def test_lists_may_differ_beyond_the_limit() -> None:
    """What is not dealt is not compared."""
    one, other = dealers_of(Controller(2).plan, limit=lambda _: 5)
    one.open(0, batches_of(10))
    other.open(0, batches_of(8))
    assert other.total == 5


@pytest.mark.parametrize("progressive", [True, False])
def test_too_few_batches_are_refused(progressive: bool) -> None:
    """Fewer batches than ranks raise an error that names the dataloader."""
    dealer = dealers_of(Controller(3).plan, progressive=progressive)[0]
    with pytest.raises(ValueError, match="`dataloader` must have at least 3 batches"):
        dealer.open(0, batches_of(2))


@pytest.mark.parametrize(
    ("plan", "ratios", "sizes"),
    [
        (Controller(3).plan, None, [4, 4, 3]),
        (plan_of(10.0, 20.0, 20.0), None, [5, 3, 3]),
        (Controller(3).plan, (0.0, 1.0, 3.0), [1, 3, 7]),
        (plan_of(10.0, 20.0, 20.0), (1.0, 1.0, 2.0), [3, 3, 5]),
    ],
    ids=["equal", "measured", "ratios", "ratios before measured"],
)
def test_fixed_parts_follow_ratios_or_speeds(
    plan: Plan, ratios: tuple[float, ...] | None, sizes: list[int]
) -> None:
    """Without progressive dealing every rank gets one batch and its part of the others."""
    dealers = dealers_of(plan, progressive=False, partition_ratios=ratios)
    open_all(dealers, 11)
    parts = train(dealers, (1.0, 1.0, 1.0))
    assert [len(part) for part in parts] == sizes
    assert flat(parts) == list(range(11))


def test_fixed_parts_do_not_follow_the_pace() -> None:
    """A slow rank keeps its part, and a fast one does not take it over."""
    dealers = dealers_of(Controller(2).plan, progressive=False)
    open_all(dealers, 20)
    assert train(dealers, (1.0, 100.0)) == [list(range(10)), list(range(10, 20))]


def test_slow_rank_leaves_the_tail_to_the_fast_one() -> None:
    """With two batches left, a rank 50 times slower claims none of them."""
    fast, slow = dealers_of(plan_of(1.0, 50.0))
    open_all([fast, slow], 4)
    assert len(list(slow.deal())) == 1
    assert [batch[0] // 2 for batch in fast.deal()] == [0, 2, 3]


def test_rank_named_to_stay_takes_what_is_left() -> None:
    """Where each rank takes the other for the faster one, the one named first stays."""
    shared = HashStore()
    plans = [plan_of(50.0, 1.0), plan_of(1.0, 50.0)]  # as of two different events
    ranks = [
        Dealer(
            ControlStore(shared, "run"),
            config=ChunkConfig(),
            rank=rank,
            plan=partial(plans.__getitem__, rank),
            limit=lambda total: total,
        )
        for rank in (0, 1)
    ]
    open_all(ranks, 4)
    assert [len(list(dealer.deal())) for dealer in ranks] == [1, 3]


class Ahead:
    """Two dealers that may look ahead, of which rank 0 is the fast one."""

    def __init__(self, *, may_open: bool = True, max_overshoot: int = 3, **config: Any) -> None:
        plan = replace(plan_of(10.0, 100.0), max_overshoot=max_overshoot)
        self.shared = HashStore()
        self.steps = 0
        self.asked: list[int] = []
        self.dealers = [
            Dealer(
                ControlStore(self.shared, "run"),
                config=ChunkConfig(**config),
                rank=rank,
                plan=lambda: plan,
                limit=lambda total: total,
                steps=lambda: self.steps,
                may_open=lambda _: may_open,
            )
            for rank in (0, 1)
        ]

    def batches_of(self, epoch: int) -> list[list[int]]:
        """Return the batches of `epoch`, which tell it by a hundred."""
        self.asked.append(epoch)
        return [[100 * epoch + number] for number in range(8)]

    def begin(self, rank: int, epoch: int) -> Iterator[Any]:
        """Open `epoch` on one rank and return its stream."""
        dealer = self.dealers[rank]
        dealer.open(epoch, self.batches_of(epoch))
        return dealer.deal(self.batches_of)

    def numbers(self, stream: Iterator[Any], count: int) -> list[int]:
        """Train up to `count` batches one by one and return their numbers."""
        trained = []
        for batch in itertools.islice(stream, count):
            trained += batch
            self.dealers[0].consume()
        return trained


def test_rank_out_of_work_is_dealt_batches_of_the_next_epoch() -> None:
    """One by one from the pool of that epoch; the reserved batch waits for its begin."""
    ahead = Ahead()
    stream = ahead.begin(0, 0)
    assert ahead.numbers(stream, 7) == [0, 2, 3, 4, 5, 6, 7]
    assert [next(stream), next(stream)] == [[102], [103]]
    assert ahead.dealers[0].consume() == (1, True, False)


def test_epoch_is_finished_once_its_last_batch_is_trained() -> None:
    """Batches of the next epoch in flight do not count."""
    ahead = Ahead()
    stream, dealer = ahead.begin(0, 0), ahead.dealers[0]
    ahead.numbers(stream, 6)
    next(stream)
    is_finished = [dealer.is_finished]  # the last batch is in flight
    next(stream)
    is_finished.append(dealer.is_finished)  # and one of the next epoch
    dealer.consume()
    assert [*is_finished, dealer.is_finished] == [False, False, True]


def test_begun_epoch_deals_again_what_was_in_flight_and_then_the_reserved_batch() -> None:
    """What was trained ahead does not come again, what was only claimed does."""
    ahead = Ahead()
    stream = ahead.begin(0, 0)
    ahead.numbers(stream, 7 + 2)
    assert [next(stream), next(stream)] == [[104], [105]]
    ahead.dealers[0].open(1, [])  # known already
    again = ahead.dealers[0].deal(ahead.batches_of)
    assert ahead.numbers(again, 5) == [104, 105, 100, 106, 107]
    assert ahead.asked == [0, 1]


def test_both_ranks_train_the_next_epoch_once() -> None:
    """Rank 1 opens it later, with a batch of its own and what rank 0 has left of it."""
    ahead = Ahead()
    fast, slow = ahead.begin(0, 0), ahead.begin(1, 0)
    next(slow)
    trained = ahead.numbers(fast, 7 + 3)[7:]
    trained += [batch[0] for batch in ahead.begin(1, 1)][:1]
    ahead.dealers[0].open(1, [])
    trained += [batch[0] for batch in ahead.dealers[0].deal()]
    assert trained[:4] == [102, 103, 104, 101]
    assert sorted(trained) == list(range(100, 108))


def test_pool_of_the_next_epoch_can_run_out() -> None:
    """Even then the reserved batches are left, and there is no third epoch."""
    ahead = Ahead()
    assert ahead.numbers(ahead.begin(0, 0), 99)[7:] == [102, 103, 104, 105, 106, 107]
    ahead.dealers[0].open(1, [])
    assert list(ahead.dealers[0].deal()) == [[100]]


def test_gate_counts_steps_and_batches_in_flight() -> None:
    """Of 100 planned steps and 3 more, 101 are made; two batches can be in flight, not three."""
    ahead = Ahead()
    stream = ahead.begin(0, 0)
    ahead.numbers(stream, 7)
    ahead.steps = 101
    assert list(stream) == [[102], [103]]


@pytest.mark.parametrize("options", [{"may_open": False}, {"max_overshoot": 0}])
def test_closed_gate_ends_the_stream_with_the_epoch(options: dict[str, Any]) -> None:
    """Then no batch of the next epoch is even asked for."""
    ahead = Ahead(**options)
    assert len(ahead.numbers(ahead.begin(0, 0), 99)) == 7
    assert (ahead.asked, ahead.dealers[0].is_finished) == ([0], True)


def test_slowest_rank_is_not_dealt_ahead() -> None:
    """Its long step would hold up the end of the epoch."""
    ahead = Ahead()
    assert list(ahead.begin(1, 0)) == [[1]]


def test_fixed_parts_are_those_of_the_first_rank_to_open() -> None:
    """Rank 1, with another plan by then, takes what rank 0 has left it."""
    ahead = Ahead(progressive=False)
    later = Dealer(
        ControlStore(ahead.shared, "run"),
        config=ChunkConfig(progressive=False),
        rank=1,
        plan=lambda: plan_of(10.0, 10.0),
        limit=lambda total: total,
    )
    fast = [batch[0] for batch in ahead.begin(0, 0)]
    later.open(0, ahead.batches_of(0))
    assert fast[:7] == [0, 1, 2, 3, 4, 5, 6]
    assert fast[7:] == [101, 102, 103, 104, 105, 106]  # 100 waits for its epoch
    assert list(later.deal()) == [[7]]


def test_epoch_left_early_keeps_batches_of_the_next_one() -> None:
    """What was in flight of the old epoch is dropped, the others are dealt again."""
    ahead = Ahead()
    stream = ahead.begin(0, 0)
    taken = list(itertools.islice(stream, 9))  # nothing trained
    assert taken[7:] == [[102], [103]]
    ahead.dealers[0].open(1, [])
    assert list(itertools.islice(ahead.dealers[0].deal(), 3)) == [[102], [103], [100]]


def test_nothing_is_dealt_before_an_epoch_is_open() -> None:
    """The error says what to do."""
    with pytest.raises(RuntimeError, match="`open` must come first"):
        next(dealers_of(Controller(2).plan)[0].deal())


def agreed(dealers: Sequence[Dealer], steps: int = 0) -> EpochProgress:
    """Return what all ranks have trained, as a checkpoint holds it."""
    group = FakeGroup(len(dealers))
    progress, *others = run_ranks(
        len(dealers),
        lambda rank: gather_progress(dealers[rank], group.of(rank), steps=steps),
    )
    assert all(other == progress for other in others)
    return progress


@given(
    ms=st.lists(st.sampled_from([1.0, 2.0, 5.0, 9.0]), min_size=2, max_size=4),
    after=st.integers(min_value=2, max_value=5),
    total=st.integers(min_value=5, max_value=70),
    trained=st.lists(st.integers(min_value=0, max_value=3), max_size=60),
    is_progressive=st.booleans(),
)
@settings(max_examples=60)
def test_resumed_epoch_deals_exactly_what_is_left(
    ms: list[float], after: int, total: int, trained: list[int], is_progressive: bool
) -> None:
    """However far each rank was, whatever it had claimed, and on any number of ranks after."""
    dealers = dealers_of(plan_of(*ms), progressive=is_progressive)
    open_all(dealers, total)
    streams = [dealer.deal() for dealer in dealers]
    done = []
    for rank in trained:
        rank %= len(ms)
        batch = next(streams[rank], None)
        if batch is not None:
            done.append(batch[0] // 2)
            dealers[rank].consume()
    for stream in streams:
        next(stream, None)  # prefetched, not trained
    progress = agreed(dealers, steps=len(done))
    resumed = dealers_of(plan_of(*[1.0] * after), progressive=is_progressive)
    for dealer in resumed:
        dealer.restore(progress)
    open_all(resumed, total)
    assert resumed[0].trained_before == len(done)
    assert resumed[0].restored_steps(0) == len(done)
    left = train(resumed, [1.0] * after)
    assert sorted(itertools.chain(done, *left)) == list(range(total))


def test_resumed_epoch_of_other_batches_is_refused() -> None:
    """Their positions would mean other samples."""
    dealers = dealers_of(plan_of(1.0, 2.0))
    open_all(dealers, 9)
    progress = agreed(dealers)
    (dealer, _) = dealers_of(plan_of(1.0, 2.0))
    dealer.restore(progress)
    with pytest.raises(ValueError, match="the sampler yields other batches"):
        dealer.open(0, batches_of(8))


def test_epoch_after_the_resumed_one_is_whole_but_for_what_was_trained_ahead() -> None:
    """Batches that were trained ahead of their epoch are not dealt again."""
    dealers = dealers_of(plan_of(1.0, 2.0))
    open_all(dealers, 9)
    progress = {**agreed(dealers), "ahead": [[3, 5]]}
    resumed = dealers_of(plan_of(1.0, 2.0))
    for dealer in resumed:
        dealer.restore(progress)
    open_all(resumed, 9, epoch=1)
    assert sorted(itertools.chain(*train(resumed, [1.0, 2.0]))) == [0, 1, 2, 5, 6, 7, 8]
    open_all(resumed, 9, epoch=2)
    assert sorted(itertools.chain(*train(resumed, [1.0, 2.0]))) == list(range(9))
