"""How the batches of an epoch are dealt."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.control.chunks import (
    Chunk,
    ChunkConfig,
    ChunkPool,
    chunk_size,
    partition_sizes,
    pool_size,
    require_batches,
    should_leave,
)
from lightning_elche.control.controller import Controller
from lightning_elche.control.reports import Report
from lightning_elche.control.schedule import Plan, Policy

SPEEDS = st.lists(st.floats(min_value=1.0, max_value=100.0), min_size=2, max_size=6)


def plan_of(*ms: float) -> Plan:
    """Return the plan after one window in which steps took `ms` on the ranks."""
    reports = [Report(batches=10, compute_ms=10.0 * value) for value in ms]
    return Controller(len(ms)).report(reports)


def size_of(plan: Plan, rank: int, remaining: int, total: int = 1000) -> int:
    """Return the size of the next chunk with the default smallest one of 4."""
    return chunk_size(plan, rank, remaining=remaining, total=total, min_chunk_batches=4)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"min_chunk_batches": 0}, "min_chunk_batches"),
        ({"progressive": True, "partition_ratios": (1.0, 2.0)}, "partition_ratios"),
        ({"progressive": False, "partition_ratios": (1.0, -1.0)}, "partition_ratios"),
        ({"progressive": False, "partition_ratios": (1.0, float("inf"))}, "partition_ratios"),
        ({"progressive": False, "partition_ratios": (float("nan"),)}, "partition_ratios"),
        ({"overshoot_ceiling": -1}, "overshoot_ceiling"),
        ({"max_overshoot": -1}, "max_overshoot"),
        ({"max_overshoot": 16}, "max_overshoot"),
        ({"lookahead_epochs": 2}, "lookahead_epochs"),
    ],
)
def test_config_is_refused_with_the_name_of_a_bad_value(
    options: dict[str, Any], named: str
) -> None:
    """A value outside its range raises an error that names the parameter."""
    with pytest.raises(ValueError, match=f"`{named}`"):
        ChunkConfig(**options)


def test_ratios_are_accepted_with_fixed_parts() -> None:
    """Ratios, zeros included, mean fixed parts."""
    config = ChunkConfig(partition_ratios=(3.0, 0.0))
    assert not config.is_progressive("cadence")


@pytest.mark.parametrize(("policy", "progressive"), [("sync", False), ("async", True)])
def test_chunks_are_dealt_progressively_unless_ranks_go_in_step(
    policy: Policy, progressive: bool
) -> None:
    """Ranks that wait for each other at every step need equal parts."""
    assert ChunkConfig().is_progressive(policy) is progressive
    assert ChunkConfig(progressive=not progressive).is_progressive(policy) is not progressive


def test_pool_reserves_one_batch_for_every_rank() -> None:
    """The shared part starts after one batch for each rank."""
    pool = ChunkPool(total=10, world_size=3)
    assert (pool.remaining, pool.in_flight, pool.completed) == (7, (1, 1, 1), (0, 0, 0))


def test_claims_are_consecutive() -> None:
    """Two claims take neighbouring slices, whoever makes them."""
    pool = ChunkPool(total=10, world_size=2)
    chunks = [pool.claim(rank=0, size=3), pool.claim(rank=1, size=2)]
    assert chunks == [Chunk(2, 5), Chunk(5, 7)]
    assert (pool.remaining, pool.in_flight) == (3, (4, 3))


def test_claim_is_cut_at_the_end() -> None:
    """A claim beyond the end takes what is left, the next one nothing."""
    pool = ChunkPool(total=5, world_size=2)
    sizes = [len(pool.claim(rank=0, size=4)), len(pool.claim(rank=1, size=4))]
    assert (sizes, pool.remaining, pool.in_flight) == ([3, 0], 0, (4, 1))


def test_only_consumed_batches_are_completed() -> None:
    """A claimed batch stays in flight until it was trained."""
    pool = ChunkPool(total=4, world_size=2)
    pool.claim(rank=0, size=2)
    pool.consume(rank=0, batches=2)
    assert (pool.in_flight, pool.completed, pool.is_complete) == ((1, 1), (2, 0), False)


def test_pool_is_complete_when_everything_was_consumed() -> None:
    """The epoch is over when the last batch in flight was trained."""
    pool = ChunkPool(total=3, world_size=2)
    pool.claim(rank=0, size=1)
    pool.consume(rank=0, batches=2)
    pool.consume(rank=1, batches=1)
    assert pool.is_complete


def test_consuming_is_refused_beyond_what_is_in_flight() -> None:
    """A rank cannot have trained what it never claimed."""
    with pytest.raises(ValueError, match="`batches` must be <= 1"):
        ChunkPool(total=5, world_size=2).consume(rank=1, batches=2)


def test_pool_is_refused_with_fewer_batches_than_ranks() -> None:
    """An epoch needs one batch per rank; the error names the dataloader."""
    with pytest.raises(ValueError, match="`dataloader` must have at least 3 batches"):
        ChunkPool(total=2, world_size=3)


def test_one_batch_per_rank_is_enough() -> None:
    """As many batches as ranks are accepted, and nothing is left to share."""
    require_batches(3, 3)
    assert ChunkPool(total=3, world_size=3).remaining == 0


@pytest.mark.parametrize(
    ("limit", "max_batches", "size"),
    [
        (1.0, None, 100),
        (0.5, None, 50),
        (10, None, 20),  # batches per rank, two ranks
        (1000, None, 100),
        (1.0, 30, 30),
        (1.0, 300, 100),
        (1.0, 0, 2),  # never less than one per rank
        (0.0, None, 0),
    ],
)
def test_limits_shrink_the_pool(limit: float, max_batches: int | None, size: int) -> None:
    """A fraction counts over all ranks, an integer per rank, and `max_steps` cuts both."""
    assert pool_size(100, limit=limit, world_size=2, max_batches=max_batches) == size


@pytest.mark.parametrize(
    ("total", "size"),
    [(1000, 10), (100, 5), (60, 4)],  # total // 20, at most the 10 planned steps, at least 4
)
def test_first_chunks_are_probes_before_calibration(total: int, size: int) -> None:
    """Unmeasured ranks take a small part each."""
    assert size_of(Controller(2).plan, 0, total - 2, total) == min(size, 10)


def test_chunk_is_one_averaging_window_in_the_midst_of_an_epoch() -> None:
    """A chunk never exceeds the rank's steps between two events."""
    plan = plan_of(10.0, 40.0)
    assert (size_of(plan, 0, 900), size_of(plan, 1, 900)) == (40, 10)


@pytest.mark.parametrize(("remaining", "size"), [(41, 10), (40, 10), (30, 8), (16, 4), (8, 2)])
def test_chunk_is_half_of_the_fair_share_near_the_end(remaining: int, size: int) -> None:
    """With little left a rank takes half of its share of it, rounded up."""
    assert size_of(plan_of(10.0, 10.0), 0, remaining) == size


@pytest.mark.parametrize("remaining", [1, 2, 3, 4])
def test_chunk_is_a_single_batch_at_the_very_end(remaining: int) -> None:
    """The last batches are taken one by one."""
    assert size_of(plan_of(10.0, 10.0), 0, remaining) == 1


def test_chunk_of_an_empty_pool_is_one() -> None:
    """Asking an empty pool is harmless; the claim comes back empty."""
    assert size_of(plan_of(10.0, 40.0), 0, 0) == 1


def test_slow_rank_leaves_when_others_finish_before_its_next_batch() -> None:
    """A batch of 40 ms is not worth starting when two remain for a rank of 10 ms."""
    assert should_leave(plan_of(10.0, 40.0), 1, remaining=2, in_flight=0)


def test_slow_rank_stays_while_its_next_batch_ends_in_time() -> None:
    """At 40 ms of other work left, a batch of 40 ms is still worth starting."""
    assert not should_leave(plan_of(10.0, 40.0), 1, remaining=3, in_flight=0)


def test_batches_in_flight_count_when_a_rank_decides_to_leave() -> None:
    """A rank that still has a batch to train would begin the next one later."""
    assert should_leave(plan_of(10.0, 40.0), 1, remaining=3, in_flight=1)


def test_fast_rank_does_not_leave_work_to_a_slow_one() -> None:
    """A rank that is faster than all others together stays to the last batch."""
    assert not should_leave(plan_of(10.0, 40.0), 0, remaining=1, in_flight=1)


def test_unmeasured_rank_never_leaves() -> None:
    """Before calibration nobody can be told to be slow."""
    assert not should_leave(Controller(2).plan, 1, remaining=1, in_flight=99)


@pytest.mark.parametrize(
    ("total", "weights", "sizes"),
    [
        (12, None, (4, 4, 4)),
        (11, None, (4, 4, 3)),
        (13, None, (5, 4, 4)),
        (11, (0.0, 0.0, 0.0), (4, 4, 3)),
        (100, (1.0, 3.0, 6.0), (10, 30, 60)),
        (101, (1.0, 3.0, 6.0), (10, 30, 61)),
        (10, (1.0, 1.0, 1.0), (4, 3, 3)),
        (2, (1.0, 1.0, 1.0), (2, 0, 0)),
        (7, (0.0, 5.0, 0.0), (0, 7, 0)),
        (0, (1.0, 2.0, 3.0), (0, 0, 0)),
    ],
)
def test_parts_follow_their_weights(
    total: int, weights: tuple[float, ...] | None, sizes: tuple[int, ...]
) -> None:
    """Equal parts give the remainder to the first ranks, weighted ones to the heaviest."""
    assert partition_sizes(total, world_size=3, weights=weights) == sizes


def test_weights_are_refused_for_another_number_of_ranks() -> None:
    """Every rank needs a weight."""
    with pytest.raises(ValueError, match="`weights` must have 3 entries, got 2"):
        partition_sizes(10, world_size=3, weights=(1.0, 2.0))


@given(
    total=st.integers(min_value=0, max_value=10_000),
    weights=st.lists(st.floats(min_value=0.0, max_value=1e6), min_size=1, max_size=9),
)
def test_parts_sum_to_the_total_for_any_weights(total: int, weights: list[float]) -> None:
    """No batch is lost or dealt twice by rounding, and no part is negative."""
    sizes = partition_sizes(total, world_size=len(weights), weights=weights)
    assert sum(sizes) == total
    assert min(sizes) >= 0


@given(total=st.integers(min_value=0, max_value=10_000), world_size=st.integers(1, 20))
def test_equal_parts_differ_by_at_most_one(total: int, world_size: int) -> None:
    """Without weights no rank has two batches more than another."""
    sizes = partition_sizes(total, world_size=world_size)
    assert max(sizes) - min(sizes) <= 1


@given(
    ms=SPEEDS,
    is_calibrated=st.booleans(),
    remaining=st.integers(min_value=1, max_value=5000),
    min_chunk=st.integers(min_value=1, max_value=50),
    data=st.data(),
)
def test_chunk_is_within_what_remains_for_any_speeds(
    ms: list[float], is_calibrated: bool, remaining: int, min_chunk: int, data: st.DataObject
) -> None:
    """A chunk has at least one batch and at most all that remain."""
    plan = plan_of(*ms) if is_calibrated else Controller(len(ms)).plan
    rank = data.draw(st.integers(min_value=0, max_value=len(ms) - 1))
    size = chunk_size(plan, rank, remaining=remaining, total=5000, min_chunk_batches=min_chunk)
    assert 1 <= size <= remaining


@given(
    world_size=st.integers(min_value=1, max_value=6),
    extra=st.integers(min_value=0, max_value=200),
    claims=st.lists(st.tuples(st.integers(0, 5), st.integers(1, 40)), max_size=60),
)
def test_every_batch_is_claimed_once_for_any_interleaving(
    world_size: int, extra: int, claims: list[tuple[int, int]]
) -> None:
    """Reserved batches and claims, in any order and size, cover the epoch exactly once."""
    total = world_size + extra
    pool = ChunkPool(total=total, world_size=world_size)
    taken = list(range(world_size))
    finish = [(0, 7)] * 40  # somebody takes what is left
    for rank, size in [*claims, *finish]:
        chunk = pool.claim(rank=rank % world_size, size=size)
        taken.extend(range(chunk.start, chunk.stop))
    assert taken == list(range(total))
    assert sum(pool.in_flight) == total


@given(ms=SPEEDS, data=st.data())
def test_rank_that_stays_would_stay_with_more_work_left(
    ms: list[float], data: st.DataObject
) -> None:
    """Whoever does not leave at some point would not have left earlier either."""
    plan, rank = plan_of(*ms), data.draw(st.integers(min_value=0, max_value=len(ms) - 1))
    remaining = data.draw(st.integers(min_value=1, max_value=500))
    leaves = [should_leave(plan, rank, remaining=remaining + k, in_flight=1) for k in (0, 1, 9)]
    assert leaves == sorted(leaves, reverse=True)
