"""Putting a dealer between a DataLoader and its sampler."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.distributed import HashStore
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    SequentialSampler,
)

from lightning_elche.control.chunks import ChunkConfig
from lightning_elche.control.controller import Controller
from lightning_elche.data.dealer import Dealer
from lightning_elche.data.sampler import ChunkSampler, deal_from, has_private_stream
from lightning_elche.distributed.control_store import ControlStore


class Numbers(Dataset[int]):
    """The numbers from 0 on."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        """Return how many."""
        return self.size

    def __getitem__(self, index: int) -> int:
        """Return the number itself."""
        return index


class Stream(IterableDataset[int]):
    """Numbers without an index."""

    def __iter__(self) -> Iterator[int]:
        """Yield three."""
        return iter(range(3))


class SpecialLoader(DataLoader[Any]):
    """A user's own kind of loader."""

    def __init__(self, *args: Any, color: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.color = color


class EpochSampler(SequentialSampler):
    """Remembers the epochs it was told."""

    epochs: tuple[int, ...] = ()

    def set_epoch(self, epoch: int) -> None:
        """Take note."""
        self.epochs += (epoch,)


def dealers_of(world_size: int = 2) -> list[Dealer]:
    """Return one dealer per rank, on one in-process store."""
    shared, plan = HashStore(), Controller(world_size).plan
    return [
        Dealer(
            ControlStore(shared, "run"),
            config=ChunkConfig(),
            rank=rank,
            plan=lambda: plan,
            limit=lambda total: total,
        )
        for rank in range(world_size)
    ]


def dealt(loader: DataLoader[Any], dealer: Dealer, epoch: int = 0) -> DataLoader[Any]:
    """Return the loader as rank `dealer` sees it."""
    return deal_from(loader, dealer=dealer, epoch=lambda: epoch)


def numbers_of(loader: DataLoader[Any], dealer: Dealer, *, steps: int | None = None) -> list[int]:
    """Train the loader's batches, or some of them, and return their numbers."""
    numbers: list[int] = []
    for step, batch in enumerate(loader):
        if step == steps:
            break
        numbers += torch.as_tensor(batch).reshape(-1).tolist()
        dealer.consume()
    return numbers


def test_ranks_share_the_samples_of_a_loader() -> None:
    """Every sample goes to one rank, the short last batch included."""
    loader, dealers = DataLoader(Numbers(23), batch_size=4), dealers_of()
    parts = [numbers_of(dealt(loader, dealer), dealer) for dealer in dealers]
    assert sorted(parts[0] + parts[1]) == list(range(23))
    assert min(len(part) for part in parts) > 0


def test_drop_last_is_obeyed() -> None:
    """The user's choice to drop the short batch holds."""
    loader, dealers = DataLoader(Numbers(23), batch_size=4, drop_last=True), dealers_of()
    parts = [numbers_of(dealt(loader, dealer), dealer) for dealer in dealers]
    assert sorted(parts[0] + parts[1]) == list(range(20))


def test_seeded_shuffling_is_dealt() -> None:
    """A generator with a fixed seed gives every rank the same permutation."""
    dealers, parts = dealers_of(), []
    for dealer in dealers:
        generator = torch.Generator().manual_seed(5)
        loader = DataLoader(Numbers(40), batch_size=4, shuffle=True, generator=generator)
        parts.append(numbers_of(dealt(loader, dealer), dealer))
    assert sorted(parts[0] + parts[1]) == list(range(40))
    assert parts[0] != sorted(parts[0])


def test_loader_without_batching_is_dealt_by_sample() -> None:
    """With `batch_size=None` the sampler's indices are dealt."""
    loader, dealers = DataLoader(Numbers(11), batch_size=None), dealers_of()
    parts = [numbers_of(dealt(loader, dealer), dealer) for dealer in dealers]
    assert sorted(parts[0] + parts[1]) == list(range(11))


def test_own_batch_sampler_is_dealt() -> None:
    """Batches of a user's batch sampler are dealt as they are."""
    sampler, dealers = BatchSampler(SequentialSampler(Numbers(9)), 3, False), dealers_of()
    loader = DataLoader(Numbers(9), batch_sampler=sampler)
    parts = [numbers_of(dealt(loader, dealer), dealer) for dealer in dealers]
    assert sorted(parts[0] + parts[1]) == list(range(9))


def test_class_and_options_are_kept() -> None:
    """The copy is of the user's class and has the user's options."""
    loader = SpecialLoader(Numbers(8), batch_size=2, color="red", pin_memory=False, timeout=0)
    copy = dealt(loader, dealers_of()[0])
    assert isinstance(copy, SpecialLoader)
    assert (copy.color, copy.dataset, copy.batch_size) == ("red", loader.dataset, 2)
    assert copy.collate_fn is loader.collate_fn


def test_original_loader_is_left_alone() -> None:
    """The user's own loader still yields everything."""
    loader = DataLoader(Numbers(8), batch_size=2)
    dealt(loader, dealers_of()[0])
    assert [batch.tolist() for batch in loader] == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_dealt_loader_has_no_length() -> None:
    """A rank does not know beforehand how much it will train."""
    copy = dealt(DataLoader(Numbers(8), batch_size=2), dealers_of()[0])
    assert isinstance(copy.batch_sampler, ChunkSampler)
    with pytest.raises(TypeError):
        len(copy)


@pytest.mark.parametrize(("num_workers", "persistent"), [(0, False), (2, True)])
def test_workers_become_persistent(num_workers: int, persistent: bool) -> None:
    """Worker processes are started once, where there are any."""
    loader = DataLoader(Numbers(8), num_workers=num_workers)
    assert dealt(loader, dealers_of()[0]).persistent_workers is persistent
    assert loader.persistent_workers is False


@pytest.mark.skipif(
    "in_order" not in inspect.signature(DataLoader).parameters, reason="needs torch 2.6"
)
def test_loader_that_returns_batches_out_of_order_is_refused() -> None:
    """Batches are counted in order, so that `in_order=False` cannot be counted."""
    with pytest.raises(ValueError, match="`in_order` must be True"):
        dealt(DataLoader(Numbers(8), in_order=False), dealers_of()[0])


def test_sampler_is_told_the_epoch_that_starts() -> None:
    """Samplers with `set_epoch` shuffle anew; the epoch is read when iteration begins."""
    sampler, dealer = EpochSampler(Numbers(8)), dealers_of()[0]
    epochs = iter([3, 4])
    loader = DataLoader(Numbers(8), batch_size=2, sampler=sampler)
    copy = deal_from(loader, dealer=dealer, epoch=lambda: next(epochs))
    assert sampler.epochs == ()
    list(copy)
    list(copy)
    assert sampler.epochs == (3, 4)


def test_distributed_sampler_of_one_replica_reshuffles_by_epoch() -> None:
    """The permutation that Lightning sets up for all ranks is another one in every epoch."""
    sampler = DistributedSampler(Numbers(40), num_replicas=1, rank=0, seed=1)
    loader, dealer = DataLoader(Numbers(40), batch_size=2, sampler=sampler), dealers_of()[0]
    first, second = (numbers_of(dealt(loader, dealer, epoch), dealer) for epoch in (0, 1))
    assert first != second
    assert sorted(first) != first


def test_iterating_an_epoch_again_continues_it() -> None:
    """A second iteration starts with what was fetched and not trained, and opens nothing."""
    loader, dealers = DataLoader(Numbers(40), batch_size=2), dealers_of()
    copy = dealt(loader, dealers[0])
    parts = [numbers_of(copy, dealers[0], steps=3), numbers_of(copy, dealers[0])]
    parts.append(numbers_of(dealt(loader, dealers[1]), dealers[1]))
    assert sorted(itertools.chain.from_iterable(parts)) == list(range(40))


@pytest.mark.parametrize(
    ("loader", "private"),
    [
        (DataLoader(Numbers(8)), False),
        (DataLoader(Stream()), True),
        ([1, 2, 3], True),
    ],
    ids=["map", "iterable", "list"],
)
def test_stream_is_private_without_an_index(loader: object, private: bool) -> None:
    """Only a DataLoader over a dataset with an index can be dealt."""
    assert has_private_stream(loader) is private


@pytest.mark.slow
def test_batches_fetched_by_workers_are_dealt_once_over_epochs() -> None:
    """Persistent workers that fetch ahead lose and double nothing, in either epoch."""
    dealers, epoch = dealers_of(), [0]
    loader = DataLoader(Numbers(42), batch_size=2, num_workers=1, prefetch_factor=4)
    copies = [deal_from(loader, dealer=d, epoch=lambda: epoch[0]) for d in dealers]
    for epoch[0] in (0, 1):
        parts = [numbers_of(c, d) for c, d in zip(copies, dealers, strict=True)]
        assert sorted(parts[0] + parts[1]) == list(range(42))


@pytest.mark.slow
def test_batches_fetched_by_workers_come_again_after_a_new_start() -> None:
    """What workers had fetched and nobody trained is trained after a second iteration."""
    loader, dealers = DataLoader(Numbers(60), batch_size=2, num_workers=1), dealers_of()
    copy = dealt(loader, dealers[0])
    parts = [numbers_of(copy, dealers[0], steps=2), numbers_of(copy, dealers[0])]
    parts.append(numbers_of(dealt(loader, dealers[1]), dealers[1]))
    assert sorted(itertools.chain.from_iterable(parts)) == list(range(60))
