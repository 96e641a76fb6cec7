"""Dealing an epoch's batches to ranks."""

from __future__ import annotations

import itertools
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributed import HashStore

from lightning_elche.control.chunks import ChunkConfig
from lightning_elche.control.controller import Controller
from lightning_elche.control.schedule import Plan
from lightning_elche.data.dealer import Dealer
from lightning_elche.distributed.control_store import ControlStore
from lightning_elche.exceptions import RankMismatch
from tests.data.dealt import batches_of, dealers_of, flat, open_all, plan_of, train
from tests.distributed.threads import run_ranks


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


def test_nothing_is_dealt_before_an_epoch_is_open() -> None:
    """The error says what to do."""
    with pytest.raises(RuntimeError, match="`open` must come first"):
        next(dealers_of(Controller(2).plan)[0].deal())
