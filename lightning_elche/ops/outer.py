"""The step of the outer optimizer on flat buffers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from lightning_elche.control.outer import OuterOptimizer

__all__ = ["outer_step_"]


def outer_step_(
    average: Tensor, *, last: Tensor, momentum: Tensor | None, config: OuterOptimizer
) -> None:
    """Replace `average` by the result of one step from `last`, bit-equal on every rank.

    Products and sums are rounded one by one: a fused multiply-add, which `add(alpha=...)` is on
    some processors and not on others, would give ranks of different hardware different bits.

    Args:
        average: The weighted average of the replicas.
        last: What they started from.
        momentum: The velocity, updated in place; `None` without momentum.
        config: The options.
    """
    gradient = torch.sub(last, average, out=average)
    if momentum is not None:
        momentum.mul_(config.momentum).add_(gradient)
        if config.nesterov:
            gradient.add_(momentum * config.momentum)
        else:
            gradient.copy_(momentum)
    torch.sub(last, gradient.mul_(config.lr), out=average)
