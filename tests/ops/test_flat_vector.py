"""Tensors as one vector and back."""

from __future__ import annotations

import pytest
import torch

from lightning_elche.exceptions import (
    AggregationError,
    FlatSizeError,
    MixedTensorsError,
    NoGradientsError,
)
from lightning_elche.ops.flat_vector import flatten, unflatten

TENSORS = {
    "scalar": torch.tensor(-0.0),
    "empty": torch.empty(0, 3),
    "strided": torch.arange(12.0).view(3, 4).t()[::2],
    "nan": torch.tensor([[torch.nan, torch.inf]]),
}


def test_round_trip_keeps_every_bit() -> None:
    """Of scalars, empty and strided tensors, and of values that are no numbers."""
    flat, spec = flatten(list(TENSORS.values()))
    back = unflatten(flat, spec)
    for tensor, same in zip(TENSORS.values(), back, strict=True):
        assert tensor.shape == same.shape
        assert tensor.contiguous().view(torch.int32).equal(same.contiguous().view(torch.int32))


def test_vector_has_the_type_of_the_tensors() -> None:
    """Nothing is cast."""
    flat, _ = flatten([torch.ones(2, dtype=torch.bfloat16)] * 2)
    assert (flat.dtype, flat.tolist()) == (torch.bfloat16, [1.0] * 4)


def test_wrong_size_is_refused() -> None:
    """Before anything is cut out of it."""
    _, spec = flatten([torch.zeros(3, 4)])
    with pytest.raises(FlatSizeError, match=r"^flat gradient must have 12 elements, got 11$"):
        unflatten(torch.zeros(11), spec)


def test_two_devices_are_refused() -> None:
    """The first tensor elsewhere is named."""
    tensors = [torch.zeros(1)] * 3 + [torch.zeros(1, device="meta")]
    message = r"^gradient tensors must share one device, got cpu and meta \(tensor 3\)$"
    with pytest.raises(MixedTensorsError, match=message):
        flatten(tensors)


def test_two_types_are_refused() -> None:
    """As `TypeError`, too, and as the one error that all of them are."""
    message = r"share one dtype, got torch.float32 and torch.float64 \(tensor 1\)"
    with pytest.raises(TypeError, match=message) as caught:
        flatten([torch.zeros(1), torch.zeros(1).double()])
    assert isinstance(caught.value, (AggregationError, RuntimeError))


def test_no_tensors_are_refused() -> None:
    """There is no type that their vector could have."""
    with pytest.raises(NoGradientsError, match="no tensors to flatten"):
        flatten([])
