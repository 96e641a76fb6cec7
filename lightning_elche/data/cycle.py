"""Data that begin anew when they are used up, where that is meant."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch
from torch.utils.data import IterableDataset

__all__ = ["Cycle"]

log = logging.getLogger(__name__)

T = TypeVar("T")


class Cycle(IterableDataset[T]):
    """Repeats data without end, and says when it does so for the first time.

    A stream that ends early makes an epoch shorter than planned, which `GateTrain` takes for a
    fault. Wrapped in this it goes on from the begin, and the run's events say so.

    Args:
        data: What to repeat; each worker of a DataLoader and each rank repeats its own copy.

    Example:
        >>> from itertools import islice
        >>> list(islice(Cycle([1, 2, 3]), 5))
        [1, 2, 3, 1, 2]
    """

    def __init__(self, data: Iterable[T]) -> None:
        self._data = data
        # Shared, since the workers of a DataLoader are processes of their own.
        self._passes = torch.zeros(1, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]

    @property
    def has_wrapped(self) -> bool:
        """Whether the data have begun anew, in any worker."""
        return int(self._passes.item()) > 0

    def __iter__(self) -> Iterator[T]:
        """Yield the items without end.

        Raises:
            ValueError: If there are none.
        """
        while True:
            item_seen = False
            for item in self._data:
                item_seen = True
                yield item
            if not item_seen:
                raise ValueError("`data` must hold at least one item to be repeated, got none.")
            if not self.has_wrapped:
                log.info("The data are used up and begin anew.")
            self._passes += 1
