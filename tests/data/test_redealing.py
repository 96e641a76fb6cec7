"""Batches that were skipped go to another rank, once."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from torch.distributed import HashStore

from lightning_elche.data.redealing import Redealing
from lightning_elche.distributed.control_store import ControlStore
from tests.data.dealt import batches_of, dealers_of, open_all, plan_of


def lists_of(world_size: int) -> list[Redealing]:
    shared = HashStore()
    return [Redealing(ControlStore(shared, "run"), "0/0", rank) for rank in range(world_size)]


def test_skipped_batch_goes_to_another_rank_once() -> None:
    """Not to the one that has skipped it, and to one of the others only."""
    own, second, third = lists_of(3)
    own.offer(7)
    assert [own.take(), third.take(), second.take(), third.take()] == [None, 7, None, None]


def test_batch_is_not_dealt_a_third_time() -> None:
    """Whoever had it from another rank does not offer it again."""
    own, other = lists_of(2)
    own.offer(7)
    taken = other.take()
    assert taken == 7
    other.offer(taken)
    assert own.take() is None


@given(
    st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=40),
)
def test_every_offer_is_taken_once_or_not_at_all(moves: list[tuple[int, bool]]) -> None:
    """Whoever looks when; and all are taken if every rank looks in the end."""
    ranks = lists_of(3)
    offered: dict[int, int] = {}
    taken: list[tuple[int, int]] = []
    for index, (rank, offers) in enumerate(moves):
        if offers:
            ranks[rank].offer(index)
            offered[index] = rank
        elif (got := ranks[rank].take()) is not None:
            taken.append((got, rank))
    for rank in range(3):
        while (got := ranks[rank].take()) is not None:
            taken.append((got, rank))
    assert Counter(index for index, _ in taken) == Counter(offered.keys())
    assert all(offered[index] != rank for index, rank in taken)


def test_dealer_deals_what_another_has_skipped() -> None:
    """Each batch is trained once, and one is known to have been dealt before."""
    dealers = dealers_of(plan_of(1.0, 1.0))
    open_all(dealers, 12)
    trained: list[int] = []
    redealt: list[int] = []
    for dealer in dealers:
        dealer.redeals = True
    first, second = dealers[0].deal(), dealers[1].deal()
    next(first)
    skipped = next(first)
    dealers[0].consume()
    trained.append(0)
    dealers[0].offer(1)
    dealers[0].consume()
    for dealer, batches in ((dealers[1], second), (dealers[0], first)):
        for batch in batches:
            trained.append(batch[0] // 2)
            if dealer.consume().is_redealt:
                redealt.append(batch[0] // 2)
    assert redealt == [skipped[0] // 2]
    assert sorted(trained) == list(range(12))


def test_group_of_batches_is_offered_from_its_first() -> None:
    """The one that is trained now is the latest."""
    dealers = dealers_of(plan_of(1.0, 1.0))
    open_all(dealers, 12)
    batches = dealers[0].deal()
    dealers[0].redeals = True
    own = [batches_of(12).index(next(batches)) for _ in range(2)]
    dealers[0].consume()
    dealers[0].offer(2)
    taken = [dealers[1]._opened().redealing.take() for _ in range(3)]
    assert taken == [*own, None]
