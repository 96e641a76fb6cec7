"""Dealing batches of the next epoch to a rank that is out of work."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from torch.distributed import HashStore

from lightning_elche.control.chunks import ChunkConfig
from lightning_elche.data.dealer import Dealer
from lightning_elche.distributed.control_store import ControlStore
from tests.data.dealt import plan_of


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
