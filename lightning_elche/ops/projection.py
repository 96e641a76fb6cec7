"""Projects conflicting gradients onto each other's normal planes: PCGrad, arXiv 2001.06782."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import mul
from typing import Literal

import torch
from torch import Tensor

from lightning_elche.exceptions import FlatSizeError, NoGradientsError
from lightning_elche.ops.flat_vector import check_alike
from lightning_elche.ops.gram import GramBuffer

__all__ = [
    "NO_GRADIENTS",
    "PCGradResult",
    "conflict_rate",
    "conflicting_pairs",
    "count_conflicts",
    "pcgrad",
    "pcgrad_weights",
]

NO_GRADIENTS = "no gradients available for aggregation"


@dataclass(frozen=True, kw_only=True)
class PCGradResult:
    """What became of the gradients of several tasks.

    Attributes:
        combined: One gradient, in the shape and type of those given.
        num_conflicts: Pairs of tasks whose gradients point away from each other.
        weights: What each task's gradient counts in `combined`; float64, on the CPU.
        num_projections: How often a gradient was projected.
    """

    combined: Tensor
    num_conflicts: int
    weights: Tensor
    num_projections: int


def pcgrad(
    grads: Sequence[Tensor],
    *,
    generator: torch.Generator,
    eps: float = 1e-12,
    reduction: Literal["sum", "mean"] = "sum",
) -> PCGradResult:
    """Combine the gradients of several tasks so that conflicts between them are removed.

    Args:
        grads: One per task, of one shape, type and device.
        generator: Draws the order in which each task meets the others; on the CPU.
        eps: Gradients shorter than this part of the longest are not projected onto.
        reduction: "sum", or "mean" to divide by the number of tasks.

    Raises:
        NoGradientsError: If there are none.
        MixedTensorsError: If they differ in device or type.
        FlatSizeError: If they differ in shape.

    Example:
        >>> import torch
        >>> from lightning_elche.ops import step_generator
        >>> grads = [torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0])]
        >>> result = pcgrad(grads, generator=step_generator(0, 0))
        >>> result.combined.tolist(), result.num_conflicts
        ([0.5, 1.5], 1)
    """
    if reduction not in ("sum", "mean"):
        raise ValueError(f'`reduction` must be "sum" or "mean", got {reduction!r}.')
    _check_gradients(grads)
    first = grads[0]
    if len(grads) == 1:
        one = torch.ones(1, dtype=torch.float64)
        return PCGradResult(combined=first, num_conflicts=0, weights=one, num_projections=0)
    buffer = GramBuffer(len(grads), first.numel(), first.dtype, first.device)
    for task, grad in enumerate(grads):
        buffer.row(task).copy_(grad.detach().reshape(-1))
    gram = buffer.gram()
    weights, num_projections = pcgrad_weights(gram, generator=generator, eps=eps)
    if reduction == "mean":
        weights = weights / len(grads)
    return PCGradResult(
        combined=buffer.combine(weights).to(first.dtype).view(first.shape),
        num_conflicts=count_conflicts(gram, eps=eps),
        weights=weights,
        num_projections=num_projections,
    )


def _check_gradients(grads: Sequence[Tensor]) -> None:
    if not grads:
        raise NoGradientsError(NO_GRADIENTS)
    check_alike(grads)
    first = grads[0]
    for position, grad in enumerate(grads):
        if grad.shape != first.shape:
            raise FlatSizeError(
                f"gradients must have one shape, got {tuple(first.shape)} and "
                f"{tuple(grad.shape)} (tensor {position})"
            )


def pcgrad_weights(
    gram: Tensor, *, generator: torch.Generator, eps: float = 1e-12
) -> tuple[Tensor, int]:
    """Return what each gradient counts in the sum of the projected ones, and how many were.

    Each is projected against the others as they were given, never as they have become. All weights
    are 1 if no two gradients conflict, or if an entry of `gram` is not finite.
    O(num_tasks^3), without the gradients themselves.

    Args:
        gram: Inner products of all pairs of gradients.
        generator: As of `pcgrad`.
        eps: As of `pcgrad`.

    Example:
        >>> import torch
        >>> from lightning_elche.ops import step_generator
        >>> gram = torch.tensor([[1.0, -1.0], [-1.0, 2.0]], dtype=torch.float64)
        >>> weights, num_projections = pcgrad_weights(gram, generator=step_generator(0, 0))
        >>> weights.tolist(), num_projections
        ([2.0, 1.5], 2)
    """
    rows: list[list[float]] = gram.tolist()
    tasks = range(len(rows))
    floor = _floor(rows, eps)
    is_finite = all(math.isfinite(entry) for row in rows for entry in row)
    total = [0.0] * len(rows)
    num_projections = 0
    for task in tasks:
        order: list[int] = torch.randperm(len(rows), generator=generator).tolist()
        own = [float(other == task) for other in tasks]
        for other in order if is_finite else ():
            if other == task or rows[other][other] <= floor:
                continue
            product = sum(map(mul, rows[other], own))
            if product < 0.0:
                own[other] -= product / rows[other][other]
                num_projections += 1
        total = [so_far + part for so_far, part in zip(total, own, strict=True)]
    return torch.tensor(total, dtype=torch.float64), num_projections


def count_conflicts(gram: Tensor, *, eps: float = 1e-12) -> int:
    """Return how many pairs of gradients have a negative inner product.

    Args:
        gram: Inner products of all pairs of gradients.
        eps: Gradients shorter than this part of the longest conflict with none.
    """
    return len(conflicting_pairs(gram.tolist(), eps=eps))


def conflicting_pairs(rows: Sequence[Sequence[float]], *, eps: float) -> list[tuple[int, int]]:
    """Return the pairs that `count_conflicts` counts.

    Args:
        rows: Of the matrix of inner products.
        eps: As of `count_conflicts`.
    """
    floor = _floor(rows, eps)
    alive = [task for task, row in enumerate(rows) if row[task] > floor]
    return [(i, j) for i in alive for j in alive if i < j and rows[i][j] < 0.0]


def conflict_rate(num_conflicts: float, num_tasks: int) -> float:
    """Return conflicts for each task beside the first: between 0 and half the number of tasks."""
    return num_conflicts / max(1, num_tasks - 1)


def _floor(rows: Sequence[Sequence[float]], eps: float) -> float:
    """Return the squared norm up to which a gradient counts as zero; relative, so scale-free."""
    return eps * eps * max((row[task] for task, row in enumerate(rows)), default=0.0)
