"""A weighted sum or mean of tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from lightning_elche.exceptions import NoGradientsError, WeightsError
from lightning_elche.ops.flat_vector import check_alike
from lightning_elche.ops.projection import NO_GRADIENTS

__all__ = ["weighted_sum"]


def weighted_sum(
    tensors: Sequence[Tensor],
    weights: Sequence[float] | Tensor | None = None,
    *,
    reduction: Literal["sum", "mean"] = "mean",
) -> Tensor:
    """Return the weighted sum or mean of tensors, summed in float32 at least, in their type.

    Args:
        tensors: Of one shape, floating-point type and device.
        weights: One for each, not negative and not all zero. `None`: 1 for each.
        reduction: "mean" divides by the sum of the weights, "sum" does not.

    Raises:
        NoGradientsError: If there are no tensors.
        MixedTensorsError: If they differ in device or type.
        WeightsError: If weights do not fit, or the shapes differ.
        TypeError: If the tensors hold integers.

    Example:
        >>> import torch
        >>> weighted_sum([torch.tensor([1.0, 2.0]), torch.tensor([5.0, 6.0])], [1.0, 3.0]).tolist()
        [4.0, 5.0]
    """
    if reduction not in ("sum", "mean"):
        raise ValueError(f'`reduction` must be "sum" or "mean", got {reduction!r}.')
    _check(tensors)
    first = tensors[0]
    numbers = _numbers(weights, len(tensors))
    wide = torch.promote_types(first.dtype, torch.float32)
    factors = torch.tensor(numbers, dtype=wide, device=first.device)
    stacked = torch.stack([tensor.to(wide) for tensor in tensors])
    total = (stacked * factors.view(-1, *[1] * first.dim())).sum(0)
    return (total / factors.sum() if reduction == "mean" else total).to(first.dtype)


def _check(tensors: Sequence[Tensor]) -> None:
    if not tensors:
        raise NoGradientsError(NO_GRADIENTS)
    check_alike(tensors)
    first = tensors[0]
    if not first.is_floating_point():
        raise TypeError(f"`tensors` must be of a floating-point type, got {first.dtype}.")
    for position, tensor in enumerate(tensors):
        if tensor.shape != first.shape:
            raise WeightsError(
                f"`tensors` must have one shape, got {tuple(first.shape)} and "
                f"{tuple(tensor.shape)} (tensor {position})."
            )


def _numbers(weights: Sequence[float] | Tensor | None, count: int) -> list[float]:
    if weights is None:
        return [1.0] * count
    if isinstance(weights, Tensor) and weights.dim() != 1:
        raise WeightsError(f"`weights` must have one dimension, got {weights.dim()}.")
    values = weights.tolist() if isinstance(weights, Tensor) else weights
    numbers = [float(value) for value in values]
    if len(numbers) != count:
        raise WeightsError(f"`weights` must be {count} numbers, one a tensor, got {len(numbers)}.")
    if not all(math.isfinite(number) and number >= 0.0 for number in numbers) or not any(numbers):
        raise WeightsError(
            f"`weights` must be finite, not negative and not all zero, got {numbers}."
        )
    return numbers
