"""Puts a dealer between a DataLoader and its sampler."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, Sampler

from lightning_elche.data.dealer import Dealer
from lightning_elche.data.epoch_progress import EpochProgress, indices_of

__all__ = [
    "ChunkSampler",
    "UntrainedSampler",
    "deal_from",
    "has_private_stream",
    "resume_alone",
]


class ChunkSampler(Sampler[Any]):
    """Yields the batches that this rank claims from the pool of the epoch.

    It has no length on purpose: a rank does not know beforehand how much it will train. The epoch
    is read when iteration starts, since Lightning calls `set_epoch` after it has begun to prefetch.

    Args:
        batches: The user's own batch sampler, or its sampler where batching is disabled.
        dealer: Claims and keeps the books.
        epoch: Returns the index of the epoch that is about to start.
    """

    def __init__(self, batches: Iterable[Any], *, dealer: Dealer, epoch: Callable[[], int]) -> None:
        self._batches = batches
        self._dealer = dealer
        self._epoch = epoch

    def __iter__(self) -> Iterator[Any]:
        """Open the epoch if it is a new one, and yield this rank's batches."""
        epoch = self._epoch()
        if not self._dealer.is_open(epoch):
            self._dealer.open(epoch, self._batches_of(epoch))
        return self._dealer.deal(self._batches_of)

    def _batches_of(self, epoch: int) -> Iterable[Any]:
        _set_epoch(self._batches, epoch)
        return self._batches


def has_private_stream(loader: object) -> bool:
    """Return whether `loader` has no index to deal from, so that the user shards it by rank."""
    return not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset)


def deal_from(
    loader: DataLoader[Any], *, dealer: Dealer, epoch: Callable[[], int]
) -> DataLoader[Any]:
    """Return a copy of `loader` that takes its batches from `dealer`.

    All options of the loader are kept, also those of a subclass. Only worker processes are made
    persistent: starting them anew in every epoch would fork this process right after a collective,
    which can deadlock the child on Python below 3.12 (CPython issue 112275).

    Raises:
        ValueError: If the loader returns batches out of order.
    """
    if not getattr(loader, "in_order", True):
        raise ValueError(
            "`in_order` must be True, got False. Batches are counted as trained in the order in "
            "which they were claimed."
        )
    dealt = _copy_with(loader, lambda batches: ChunkSampler(batches, dealer=dealer, epoch=epoch))
    object.__setattr__(dealt, "persistent_workers", loader.num_workers > 0)
    return dealt


def resume_alone(
    loader: DataLoader[Any], *, progress: EpochProgress, epoch: Callable[[], int]
) -> DataLoader[Any]:
    """Return a copy of `loader` for one device that continues an epoch of several ranks.

    Args:
        loader: With the sampler that the ranks had.
        progress: What they have trained.
        epoch: Returns the index of the epoch that is about to start.
    """
    return _copy_with(loader, lambda batches: UntrainedSampler(batches, progress, epoch))


class UntrainedSampler(Sampler[Any]):
    """Yields the batches of an epoch that were not trained before; all of other epochs.

    Its length is that of a whole epoch, since Lightning counts from what was trained.

    Args:
        batches: The user's own batch sampler, or its sampler where batching is disabled.
        progress: What was trained.
        epoch: Returns the index of the epoch that is about to start.
    """

    def __init__(
        self, batches: Collection[Any], progress: EpochProgress, epoch: Callable[[], int]
    ) -> None:
        self._batches = batches
        self._progress = progress
        self._epoch = epoch

    def __iter__(self) -> Iterator[Any]:
        """Yield this epoch's batches."""
        epoch = self._epoch()
        _set_epoch(self._batches, epoch)
        is_resumed = epoch == self._progress["epoch"]
        trained = indices_of(self._progress["trained"]) if is_resumed else set()
        return (batch for index, batch in enumerate(self._batches) if index not in trained)

    def __len__(self) -> int:
        return len(self._batches)


def _copy_with(
    loader: DataLoader[Any], sampler_over: Callable[[Any], Sampler[Any]]
) -> DataLoader[Any]:
    copied = copy.copy(loader)
    name = "sampler" if loader.batch_sampler is None else "batch_sampler"
    # A DataLoader forbids to set its samplers; a copy that was not iterated yet may get others.
    object.__setattr__(copied, name, sampler_over(getattr(loader, name)))
    copied._iterator = None  # workers of the loader itself ask its own sampler
    return copied


def _set_epoch(batches: object, epoch: int) -> None:
    for sampler in (batches, getattr(batches, "sampler", None)):
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
