"""Sums in bfloat16 with error feedback."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lightning_elche.distributed.compressed_sum import CompressedSum
from tests.distributed.threads import FakeGroup, run_ranks

BFLOAT16_STEP = 2.0**-8  # relative size of a rounding unit; half of it is lost at most
LOST = 1.0 + 2.0**-10  # rounds to 1


def sums_of(
    summands: Sequence[Sequence[Tensor]],
    *,
    forget: Callable[[CompressedSum], object] = lambda _: None,
) -> list[list[Tensor]]:
    """Sum `summands[round][rank]` round by round and return each rank's results."""
    world_size = len(summands[0])
    group = FakeGroup(world_size)

    def run(rank: int) -> list[Tensor]:
        size = summands[0][rank].numel()
        compressed = CompressedSum(size, torch.device("cpu"), group.of(rank))
        results = []
        for of_ranks in summands:
            result = of_ranks[rank].clone()
            compressed.sum_(result)
            forget(compressed)
            results.append(result)
        return results

    return run_ranks(world_size, run)


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_sum_of_what_bfloat16_holds_is_exact(world_size: int) -> None:
    """Any number of elements over any number of ranks, the last part being a short one."""
    parts = [torch.arange(7.0) * 2.0**rank for rank in range(world_size)]
    expected = torch.arange(7.0) * (2.0**world_size - 1.0)
    assert all(torch.equal(result, expected) for (result,) in sums_of([parts]))


def test_results_are_bit_equal_on_all_ranks() -> None:
    """Whatever is rounded away, all ranks round the same."""
    generator = torch.Generator().manual_seed(0)
    rounds = [list(torch.randn(3, 100, generator=generator)) for _ in range(5)]
    first, *others = sums_of(rounds)
    assert all(torch.equal(a, b) for other in others for a, b in zip(first, other, strict=True))


@given(seed=st.integers(0, 2**32 - 1), world_size=st.integers(1, 4), scale=st.floats(1e-6, 1e6))
def test_accumulated_error_stays_bounded(seed: int, world_size: int, scale: float) -> None:
    """After 30 rounds of any summands no more is missing than two roundings of each rank's last."""
    generator = torch.Generator().manual_seed(seed)
    rounds = [list(scale * torch.randn(world_size, 11, generator=generator)) for _ in range(30)]
    total = sum(part.double() for parts in rounds for part in parts)
    reached = sum(result.double() for result in sums_of(rounds)[0])
    largest = max(float(part.abs().max()) for parts in rounds for part in parts)
    assert float((total - reached).abs().max()) <= 2.0 * world_size * BFLOAT16_STEP * largest


def test_error_grows_without_bound_where_it_is_forgotten() -> None:
    """The falsifier: 256 rounds lose 256 times 2^-10 from each of two ranks, and none if kept."""
    rounds = [[torch.full((4,), LOST)] * 2] * 256
    kept = sum(sums_of(rounds)[0])
    forgotten = sum(sums_of(rounds, forget=lambda compressed: compressed.error.zero_())[0])
    assert abs(float(kept[0]) - 512.5) <= 2.0**-6  # one rounding of 2 by the sum's owner
    assert float(forgotten[0]) == 512.0


def test_summand_of_zero_sends_what_is_still_owed() -> None:
    """Eight times 2^-10 are too little for 1, but arrive when 1 is no longer there."""
    rounds = [[torch.full((2,), LOST), torch.zeros(2)]] * 2 + [[torch.zeros(2)] * 2] * 2
    assert float(sum(sums_of(rounds)[0])[0]) == 2.0 * LOST


def test_half_of_the_bytes_travel() -> None:
    """Two for each element, whatever the number of ranks."""
    compressed = CompressedSum(7, torch.device("cpu"), FakeGroup(3).of(0))
    assert compressed.wire_bytes == 14
