"""Chunks: how the batches of an epoch are dealt to ranks of different speed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lightning_elche.control.schedule import Plan, Policy

__all__ = [
    "Chunk",
    "ChunkConfig",
    "ChunkPool",
    "chunk_size",
    "partition_sizes",
    "pool_size",
    "require_batches",
    "should_leave",
]

TAIL_DIVISOR = 2  # "factoring" of Hummel, Schonberg and Flynn (CACM 1992): half of a fair share


@dataclass(frozen=True, kw_only=True)
class ChunkConfig:
    """How the batches of an epoch are dealt.

    Args:
        progressive: Deal chunks while the epoch runs, by measured throughput. Off: every rank gets
            one fixed part of the epoch at its start. Default: off with policy "sync" or with
            `partition_ratios`, else on.
        min_chunk_batches: Smallest chunk before the speeds are known, the end of an epoch aside.
        partition_ratios: The fixed parts by rank, in any unit. Default: equal before the speeds are
            known, then by throughput.
        max_overshoot: Steps beyond its planned ones that a rank out of work may make on batches of
            the next epoch, with policy "async" or backend "cpu"; 0: none, and no such batch at all.
            Default: 2 to 10, by the size of the epoch and the divergence of the replicas.
        overshoot_ceiling: Largest `max_overshoot`.
        lookahead_epochs: How many epochs ahead such batches may be: 1, or 0 for none. Use 0 if your
            sampler depends on what the epoch before has brought.

    Example:
        >>> ChunkConfig(partition_ratios=(3, 1)).is_progressive("cadence")
        False
    """

    progressive: bool | None = None
    min_chunk_batches: int = 4
    partition_ratios: tuple[float, ...] | None = None
    max_overshoot: int | None = None
    overshoot_ceiling: int = 15
    lookahead_epochs: int = 1

    def __post_init__(self) -> None:
        """Validate."""
        if self.min_chunk_batches < 1:
            raise ValueError(f"`min_chunk_batches` must be >= 1, got {self.min_chunk_batches}.")
        self._check_overshoot()
        if self.partition_ratios is not None:
            self._check_ratios(self.partition_ratios)

    def _check_overshoot(self) -> None:
        if self.overshoot_ceiling < 0:
            raise ValueError(f"`overshoot_ceiling` must be >= 0, got {self.overshoot_ceiling}.")
        if self.max_overshoot is not None and not 0 <= self.max_overshoot <= self.overshoot_ceiling:
            raise ValueError(
                f"`max_overshoot` must be from 0 to `overshoot_ceiling` ({self.overshoot_ceiling})"
                f", got {self.max_overshoot}. Lower it or raise `overshoot_ceiling`."
            )
        if self.lookahead_epochs not in (0, 1):
            raise ValueError(f"`lookahead_epochs` must be 0 or 1, got {self.lookahead_epochs}.")

    def _check_ratios(self, ratios: tuple[float, ...]) -> None:
        if self.progressive:
            raise ValueError(
                "`partition_ratios` needs fixed parts, got `progressive=True`. "
                "Chunks are dealt by measured speed; fixed parts are not."
            )
        if any(not (ratio >= 0.0 and math.isfinite(ratio)) for ratio in ratios):
            raise ValueError(f"`partition_ratios` must be finite and >= 0, got {ratios}.")

    def is_progressive(self, policy: Policy) -> bool:
        """Return whether chunks are dealt while an epoch runs."""
        if self.progressive is None:
            return policy != "sync" and self.partition_ratios is None
        return self.progressive


@dataclass(frozen=True)
class Chunk:
    """Consecutive batches `[start, stop)` of an epoch's batch list."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


class ChunkPool:
    """The books of one epoch: which batches are unclaimed, claimed, and consumed.

    Every rank owns one reserved batch, so that none is without any: rank r owns batch r, and the
    shared part starts at `world_size`. A claim is one fetch-and-add on a cursor, O(1).

    Args:
        total: Batches in the epoch.
        world_size: Number of ranks.

    Example:
        >>> pool = ChunkPool(total=10, world_size=2)
        >>> pool.claim(rank=0, size=3), pool.remaining
        (Chunk(start=2, stop=5), 5)
    """

    def __init__(self, *, total: int, world_size: int) -> None:
        require_batches(total, world_size)
        self.total = total
        self.world_size = world_size
        self._cursor = world_size
        self._claimed = [1] * world_size
        self._consumed = [0] * world_size

    @property
    def remaining(self) -> int:
        """Batches that nobody has claimed."""
        return max(0, self.total - self._cursor)

    @property
    def in_flight(self) -> tuple[int, ...]:
        """Batches that each rank has claimed and not consumed."""
        return tuple(c - d for c, d in zip(self._claimed, self._consumed, strict=True))

    @property
    def completed(self) -> tuple[int, ...]:
        """Batches that each rank has consumed."""
        return tuple(self._consumed)

    @property
    def is_complete(self) -> bool:
        """Whether every batch of the epoch was consumed."""
        return sum(self._consumed) == self.total

    def claim(self, *, rank: int, size: int) -> Chunk:
        """Take up to `size` batches; the chunk is empty if none is left."""
        start = min(self._cursor, self.total)
        stop = min(self._cursor + size, self.total)
        self._cursor += size
        self._claimed[rank] += stop - start
        return Chunk(start, stop)

    def consume(self, *, rank: int, batches: int) -> None:
        """Record that `rank` has trained `batches` of its claimed batches.

        Raises:
            ValueError: If the rank has not claimed that many.
        """
        if batches > self.in_flight[rank]:
            raise ValueError(
                f"`batches` must be <= {self.in_flight[rank]} (in flight on rank {rank}), "
                f"got {batches}."
            )
        self._consumed[rank] += batches


def require_batches(total: int, world_size: int) -> None:
    """Check that every rank can have a batch.

    Raises:
        ValueError: If there are fewer batches than ranks.
    """
    if total < world_size:
        raise ValueError(
            f"`dataloader` must have at least {world_size} batches (one per rank), got {total}. "
            "Use a smaller batch size, more data or fewer ranks."
        )


def pool_size(total: int, *, limit: float, world_size: int, max_batches: int | None = None) -> int:
    """Return how many batches of an epoch are dealt.

    Args:
        total: Batches in the epoch over all ranks.
        limit: `limit_train_batches`: an integer counts batches per rank, a float is a fraction.
        world_size: Number of ranks.
        max_batches: Batches until `max_steps` is reached, if it is set. One per rank is the least.
    """
    size = min(total, limit * world_size) if isinstance(limit, int) else int(total * limit)
    return size if max_batches is None else min(size, max(max_batches, world_size))


def chunk_size(plan: Plan, rank: int, *, remaining: int, total: int, min_chunk_batches: int) -> int:
    """Return how many batches `rank` should claim next.

    A chunk never exceeds one averaging window of the rank, so that a change of speed is answered
    within a window or two: what is claimed cannot be given back. Towards the end of the epoch it
    shrinks to half of the rank's share of what remains, down to single batches.

    Args:
        plan: The agreed plan.
        rank: The rank that claims.
        remaining: Unclaimed batches.
        total: Batches in the epoch.
        min_chunk_batches: Smallest probe, before the speeds are known.

    Returns:
        At least 1, at most `remaining` if that is not 0.
    """
    world_size = len(plan.local_steps)
    if plan.is_calibrated:
        size = math.ceil(remaining * plan.shares[rank] / TAIL_DIVISOR)
    else:
        probe = max(min_chunk_batches, total // (world_size * 10))
        size = min(probe, math.ceil(remaining / (TAIL_DIVISOR * world_size)))
    return max(1, min(size, plan.local_steps[rank], remaining))


def should_leave(plan: Plan, rank: int, *, remaining: int, in_flight: int) -> bool:
    """Decide whether a slow rank leaves the rest of the epoch to faster ones.

    It leaves if the faster ranks alone could finish everything, their own batches in flight
    included (taken to be as many as those of `rank`), before it would finish one batch more. The
    fastest rank never leaves.

    Args:
        plan: The agreed plan.
        rank: The rank that would claim.
        remaining: Unclaimed batches.
        in_flight: Batches that the rank has claimed and not consumed.
    """
    if not plan.is_calibrated:
        return False
    own_ms = plan.ms_per_batch[rank]
    faster = [ms for other, ms in enumerate(plan.ms_per_batch) if (ms, other) < (own_ms, rank)]
    speed = sum(1.0 / ms for ms in faster)
    return bool(faster) and (in_flight + 1) * own_ms * speed > remaining + 1 + in_flight * len(
        faster
    )


def partition_sizes(
    total: int, *, world_size: int, weights: Sequence[float] | None = None
) -> tuple[int, ...]:
    """Split `total` batches into one fixed part per rank.

    Args:
        total: Batches in the epoch.
        world_size: Number of ranks.
        weights: Relative size of each part, for example throughputs or ratios set by hand. `None`
            or all zero: equal parts.

    Returns:
        Sizes that sum to `total`. Equal parts give the remainder to the first ranks one by one,
        weighted parts all of it to the heaviest rank.

    Raises:
        ValueError: If `weights` has not `world_size` entries.
    """
    if weights is not None and len(weights) != world_size:
        raise ValueError(f"`weights` must have {world_size} entries, got {len(weights)}.")
    if weights is None or not any(weights):
        part, rest = divmod(total, world_size)
        return tuple(part + (rank < rest) for rank in range(world_size))
    whole = sum(weights)
    sizes = [math.floor(total * weight / whole) for weight in weights]
    heaviest = max(range(world_size), key=lambda rank: (weights[rank], -rank))
    sizes[heaviest] += total - sum(sizes)
    return tuple(sizes)
