"""One rank's books of one epoch: what it has claimed of the epoch's batches."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from lightning_elche.control.chunks import (
    ChunkConfig,
    chunk_size,
    partition_sizes,
    require_batches,
    should_leave,
)
from lightning_elche.control.schedule import Plan
from lightning_elche.data.epoch_progress import without
from lightning_elche.data.redealing import Redealing
from lightning_elche.distributed.control_store import ControlStore
from lightning_elche.distributed.store_pool import StorePool
from lightning_elche.exceptions import RankMismatch

__all__ = ["EpochBooks"]


class EpochBooks:
    """Claims the batches of one epoch for this rank, from the common pool or its fixed part.

    One batch is reserved for every rank. It is dealt only once the epoch has begun, so that no
    rank is without a batch in an epoch, however much was trained ahead of it.

    Args:
        epoch: Index of the epoch.
        batches: What the user's batch sampler yields in this epoch, equal on every rank.
        store: The run's control store.
        config: How to deal.
        rank: This rank.
        plan: The agreed plan.
        limit: Maps the number of batches in the epoch to the number to deal.
        trained: Positions of batches that were trained before, which are not dealt again. Ranks may
            be without a batch then.
        name: A name unique to these books, equal on every rank.
        part: The batches that this rank gets, in order, instead of those that it claims.

    Raises:
        RankMismatch: If another rank has another list.
        ValueError: If there are fewer batches than ranks.
    """

    def __init__(
        self,
        epoch: int,
        batches: Iterable[Any],
        *,
        store: ControlStore,
        config: ChunkConfig,
        rank: int,
        plan: Plan,
        limit: Callable[[int], int],
        trained: Collection[int] = (),
        name: str | None = None,
        part: Sequence[int] | None = None,
    ) -> None:
        self.epoch = epoch
        self.batches: Sequence[Any] = list(batches)
        self.total = limit(len(self.batches))
        self.queue: deque[int] = deque()  # claimed, not given out
        self.is_closed = False  # whether this rank will claim no more
        self.trained_ahead: list[int] = []  # by this rank, before the epoch began
        self._store = store
        self._config = config
        self._rank = rank
        self._name = name or str(epoch)
        self.redealing = Redealing(store, self._name, rank)
        world_size = len(plan.local_steps)
        require_batches(self.total, world_size)
        self.digest = self.digest_of(self.total)
        self._compare()
        self._order = without(self.total, trained)
        self._pool: StorePool | None = None
        self._reserved: Sequence[int] = []
        if part is None:
            self._take_part(plan, world_size)
        else:
            self.queue.extend(part)

    @property
    def trained_before(self) -> int:
        """Batches that were trained before these books were opened."""
        return self.total - len(self._order)

    def begin(self) -> None:
        """Queue the reserved batch first: the epoch has begun."""
        self.queue.extendleft(self._reserved)
        self._reserved = []

    def untrained(self, in_flight: Iterable[int]) -> list[int]:
        """Return what of the epoch this rank knows to be left: its own batches, and unclaimed ones.

        Args:
            in_flight: Batches that this rank was given and has not trained.
        """
        left = [*self._reserved, *self.queue, *in_flight]
        if self._pool is not None:
            left += self._order[len(self._order) - self._pool.remaining() :]
        return left

    def has_batch(self, plan: Plan, *, in_flight: int) -> bool:
        """Return whether a batch is queued; claims the next chunk if not.

        Args:
            plan: The agreed plan.
            in_flight: Batches that this rank was given and has not trained.
        """
        if not self.queue and not self.is_closed:
            self.is_closed = not self._claim_chunk(plan, in_flight)
        return bool(self.queue)

    def has_redealt_batch(self) -> bool:
        """Return whether a batch that another rank has skipped is queued now. Asks the store."""
        index = self.redealing.take()
        if index is not None:
            self.queue.append(index)
        return index is not None

    def has_batch_ahead(self) -> bool:
        """Return whether a batch is queued before the epoch has begun; claims a single one."""
        if not self.queue and self._pool is not None:
            self._claim(self._pool, 1)
        return bool(self.queue)

    def _take_part(self, plan: Plan, world_size: int) -> None:
        part = range(self._rank, self._rank + 1)
        if self._config.is_progressive(plan.policy):
            total = len(self._order)
            self._pool = StorePool(self._store, self._name, total=total, world_size=world_size)
        else:
            part = self._fixed_part(plan, world_size)
        self._reserved = self._order[part.start : part.start + 1]
        self.queue.extend(self._order[part.start + 1 : part.stop])

    def _claim_chunk(self, plan: Plan, in_flight: int) -> bool:
        if self._pool is None:
            return False
        remaining = self._pool.remaining()
        if remaining == 0 or self._leaves(plan, remaining, in_flight):
            return False
        size = chunk_size(
            plan,
            self._rank,
            remaining=remaining,
            total=self.total,
            min_chunk_batches=self._config.min_chunk_batches,
        )
        return self._claim(self._pool, size)

    def _claim(self, pool: StorePool, size: int) -> bool:
        chunk = pool.claim(size)
        self.queue.extend(self._order[chunk.start : chunk.stop])
        return len(chunk) > 0

    def _leaves(self, plan: Plan, remaining: int, in_flight: int) -> bool:
        if not should_leave(plan, self._rank, remaining=remaining, in_flight=in_flight):
            return False
        # The first rank that would leave names, for all, one that may not: whoever is named asks
        # here before leaving, so it is still at work, and every batch finds a taker.
        last = self._store.first_value(f"last/{self._name}", str(plan.fastest))
        return int(last) != self._rank

    def _fixed_part(self, plan: Plan, world_size: int) -> range:
        weights = self._config.partition_ratios or (plan.shares if plan.is_calibrated else None)
        total = max(0, len(self._order) - world_size)
        own = partition_sizes(total, world_size=world_size, weights=weights)
        # Ranks that open the epoch ahead of it have an older plan; the sizes of the first count.
        sizes = json.loads(self._store.first_value(f"parts/{self._name}", json.dumps(own)))
        start = sum(sizes[: self._rank]) + self._rank  # one batch each on top of the weighted part
        return range(start, start + sizes[self._rank] + 1)

    def digest_of(self, total: int) -> str:
        """Return a name for the list of the first `total` batches."""
        digest = hashlib.sha256()
        for batch in self.batches[:total]:
            digest.update(f"{batch!r};".encode())
        return digest.hexdigest()

    def _compare(self) -> None:
        first = self._store.first_value(f"batches/{self._name}", self.digest)
        if first != self.digest:
            raise RankMismatch(
                "data",
                f"Ranks must see the same batches in epoch {self.epoch}, but the samplers of rank "
                f"{self._rank} and another rank disagree. Seed the sampler (`seed_everything`, or "
                "a generator with a fixed seed), and do not shard the data by rank yourself.",
            )
