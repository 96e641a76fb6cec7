"""Scaling of learning rates."""

from __future__ import annotations

from collections.abc import Sequence

import torch

__all__ = ["scale_learning_rates"]

RATES = ("lr", "initial_lr", "max_lr", "min_lr")  # the last three are set by schedulers


def scale_learning_rates(
    optimizers: Sequence[torch.optim.Optimizer], schedulers: Sequence[object], factor: float
) -> None:
    """Multiply the learning rates of optimizers, and what schedulers derive them from.

    Args:
        optimizers: Optimizers, after their schedulers were created.
        schedulers: These schedulers.
        factor: What to multiply by.
    """
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group.update({name: group[name] * factor for name in RATES if name in group})
    for scheduler in schedulers:
        base_rates = getattr(scheduler, "base_lrs", None)
        if base_rates is not None:
            scheduler.base_lrs = [rate * factor for rate in base_rates]  # type: ignore[attr-defined]
