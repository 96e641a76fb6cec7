"""A weighted sum or mean of tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_elche.exceptions import MixedTensorsError, NoGradientsError, WeightsError
from lightning_elche.ops.weighted import weighted_sum

A, B = torch.tensor([[1.0, 2.0]]), torch.tensor([[5.0, -2.0]])


@pytest.mark.parametrize(
    ("weights", "reduction", "expected"),
    [
        ([1.0, 3.0], "mean", [[4.0, -1.0]]),
        ([1.0, 3.0], "sum", [[16.0, -4.0]]),
        (torch.tensor([0.0, 2.0]), "mean", [[5.0, -2.0]]),
        (None, "mean", [[3.0, 0.0]]),
        (None, "sum", [[6.0, 0.0]]),
    ],
)
def test_sum_and_mean(weights: Any, reduction: Any, expected: list[list[float]]) -> None:
    """The mean is the sum over the sum of the weights; no weights are ones."""
    assert weighted_sum([A, B], weights, reduction=reduction).tolist() == expected


def test_scalars_can_be_weighted() -> None:
    """A tensor of any rank, also none."""
    total = weighted_sum([torch.tensor(2.0), torch.tensor(4.0)], [3.0, 1.0])
    assert (total.dim(), float(total)) == (0, 2.5)


def test_half_precision_is_summed_in_single() -> None:
    """60000 + 60000 does not fit into float16, but their mean does."""
    big = torch.tensor([60_000.0], dtype=torch.float16)
    mean = weighted_sum([big, big])
    assert (mean.dtype, mean.tolist()) == (torch.float16, [60_000.0])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0], "`weights` must be 2 numbers, one a tensor, got 1"),
        ([1.0, float("nan")], "must be finite, not negative and not all zero, got"),
        ([1.0, float("inf")], "must be finite"),
        ([1.0, -1.0], "must be finite, not negative"),
        ([0.0, 0.0], "not all zero"),
        (torch.ones(2, 1), "`weights` must have one dimension, got 2"),
    ],
)
def test_weights_that_do_not_fit_are_refused(weights: Any, message: str) -> None:
    """With what they should be."""
    with pytest.raises(WeightsError, match=message):
        weighted_sum([A, B], weights)


def test_tensors_that_do_not_fit_are_refused() -> None:
    """Each with an error of its kind."""
    with pytest.raises(WeightsError, match=r"one shape, got \(1, 2\) and \(2,\) \(tensor 1\)"):
        weighted_sum([A, B[0]])
    with pytest.raises(MixedTensorsError, match="share one dtype"):
        weighted_sum([A, B.double()])
    with pytest.raises(TypeError, match=r"floating-point type, got torch.int64"):
        weighted_sum([A.long(), B.long()])
    with pytest.raises(NoGradientsError, match="no gradients available for aggregation"):
        weighted_sum([])


def test_unknown_reduction_is_refused() -> None:
    """The message names the choices."""
    with pytest.raises(ValueError, match='`reduction` must be "sum" or "mean", got \'max\''):
        weighted_sum([A], reduction="max")  # type: ignore[arg-type]
