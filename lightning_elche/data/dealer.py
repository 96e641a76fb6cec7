"""Deals an epoch's batches to this rank, chunk by chunk."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from lightning_elche.control.chunks import (
    Chunk,
    ChunkConfig,
    chunk_size,
    partition_sizes,
    require_batches,
    should_leave,
)
from lightning_elche.control.schedule import Plan
from lightning_elche.distributed.control_store import ControlStore
from lightning_elche.distributed.store_pool import StorePool
from lightning_elche.exceptions import RankMismatch

__all__ = ["Dealer"]


class Dealer:
    """Hands out the batches that this rank claims, and keeps the books on them.

    Every rank evaluates the same batch list; a digest of it is compared when an epoch opens.
    DataLoader workers ask for batches ahead of time, so that a claimed batch is not yet a consumed
    one.

    Args:
        store: The run's control store.
        config: How to deal.
        rank: This rank.
        plan: Returns the agreed plan.
        limit: Maps the number of batches in the epoch to the number to deal.
    """

    def __init__(
        self,
        store: ControlStore,
        *,
        config: ChunkConfig,
        rank: int,
        plan: Callable[[], Plan],
        limit: Callable[[int], int],
    ) -> None:
        self._store = store
        self._config = config
        self._rank = rank
        self._plan = plan
        self._limit = limit
        self._epoch: int | None = None
        self._in_flight: deque[int] = deque()  # given out, not consumed
        self._queue: deque[int] = deque()  # claimed, not given out

    @property
    def total(self) -> int:
        """Batches that all ranks together train in this epoch."""
        return self._total

    @property
    def available(self) -> int:
        """Batches in this epoch before any limit."""
        return len(self._batches)

    def is_open(self, epoch: int) -> bool:
        """Return whether `epoch` is the one being dealt."""
        return epoch == self._epoch

    def open(self, epoch: int, batches: Iterable[Any]) -> None:
        """Start a new epoch.

        Args:
            epoch: Its index.
            batches: What the user's batch sampler yields in this epoch, equal on every rank.

        Raises:
            RankMismatch: If another rank has another list.
            ValueError: If there are fewer batches than ranks.
        """
        self._batches: Sequence[Any] = list(batches)
        self._total = self._limit(len(self._batches))
        world_size = len(self._plan().local_steps)
        require_batches(self._total, world_size)
        self._compare(epoch)
        self._epoch = epoch
        self._in_flight.clear()
        self._queue.clear()
        if self._config.is_progressive(self._plan().policy):
            self._queue.append(self._rank)  # the reserved batch
            self._pool: StorePool | None = StorePool(
                self._store, str(epoch), total=self._total, world_size=world_size
            )
        else:
            self._pool = None
            self._queue.extend(self._fixed_part(world_size))

    def deal(self) -> Iterator[Any]:
        """Yield this rank's batches; iterating again starts with what was not consumed."""
        self._queue.extendleft(reversed(self._in_flight))
        self._in_flight.clear()
        while self._queue or self._claim():
            index = self._queue.popleft()
            self._in_flight.append(index)
            yield self._batches[index]

    def consume(self) -> int:
        """Record that the oldest batch in flight was trained, and return its number of samples."""
        batch = self._batches[self._in_flight.popleft()]
        return len(batch) if isinstance(batch, Sequence) else 1

    def _claim(self) -> Chunk | None:
        """Queue the next chunk; return it, or `None` if this rank has no more in this epoch."""
        if self._pool is None:
            return None
        plan = self._plan()
        remaining = self._pool.remaining()
        if remaining == 0 or self._leaves(plan, remaining):
            return None
        size = chunk_size(
            plan,
            self._rank,
            remaining=remaining,
            total=self._total,
            min_chunk_batches=self._config.min_chunk_batches,
        )
        chunk = self._pool.claim(size)
        self._queue.extend(range(chunk.start, chunk.stop))
        return chunk if len(chunk) else None

    def _leaves(self, plan: Plan, remaining: int) -> bool:
        in_flight = len(self._in_flight)
        if not should_leave(plan, self._rank, remaining=remaining, in_flight=in_flight):
            return False
        # The first rank that would leave names, for all, one that may not: whoever is named asks
        # here before leaving, so it is still at work, and every batch finds a taker.
        last = self._store.first_value(f"last/{self._epoch}", str(plan.fastest))
        return int(last) != self._rank

    def _fixed_part(self, world_size: int) -> range:
        plan = self._plan()
        weights = self._config.partition_ratios or (plan.shares if plan.is_calibrated else None)
        sizes = partition_sizes(self._total - world_size, world_size=world_size, weights=weights)
        start = sum(sizes[: self._rank]) + self._rank  # one batch each on top of the weighted part
        return range(start, start + sizes[self._rank] + 1)

    def _compare(self, epoch: int) -> None:
        digest = hashlib.sha256()
        for batch in self._batches[: self._total]:
            digest.update(f"{batch!r};".encode())
        own = digest.hexdigest()
        if self._store.first_value(f"batches/{epoch}", own) != own:
            raise RankMismatch(
                "data",
                f"Ranks must see the same batches in epoch {epoch}, but the samplers of rank "
                f"{self._rank} and another rank disagree. Seed the sampler (`seed_everything`, or "
                "a generator with a fixed seed), and do not shard the data by rank yourself.",
            )
