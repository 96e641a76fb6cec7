"""One number tells whether all values of many tensors are finite."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_elche.ops.finite import read_together, totals

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64]


def is_finite(*tensors: torch.Tensor) -> bool:
    return all(math.isfinite(number) for number in read_together(totals(tensors)))


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float8_e4m3fn])
def test_one_nan_among_many_values_is_noticed(dtype: torch.dtype) -> None:
    """In any place, and beside other tensors."""
    sound = torch.ones(1001)
    spoiled = sound.clone()
    spoiled[700] = math.nan
    assert is_finite(torch.ones(3), sound.to(dtype))
    assert not is_finite(torch.ones(3), spoiled.to(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_infinities_that_cancel_are_noticed(dtype: torch.dtype) -> None:
    """Their sum is no number."""
    assert not is_finite(torch.tensor([math.inf, -math.inf], dtype=dtype))


def test_sum_of_large_half_values_is_finite() -> None:
    """A sum in float16 would overflow at 65504."""
    assert is_finite(torch.full((1000,), 6e4, dtype=torch.float16))


def test_integers_are_left_out() -> None:
    """Nothing can be wrong with them."""
    assert totals([torch.ones(3, dtype=torch.int64)]) == []


def test_numbers_of_different_types_are_read_in_order() -> None:
    """As Python numbers."""
    numbers = [torch.tensor(1.5), torch.tensor([2.5], dtype=torch.float64), torch.tensor(3.0)]
    assert read_together(numbers) == [1.5, 2.5, 3.0]
