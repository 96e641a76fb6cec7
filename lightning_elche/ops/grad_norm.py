"""The norm of all gradients of an optimizer."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

__all__ = ["total_norm"]

SURELY_BELOW = 0.999  # clipping divides by a norm that is a little larger


def total_norm(optimizer: torch.optim.Optimizer, *, clip_norm: float | None = None) -> Tensor:
    """Return the L2 norm of all gradients of `optimizer`, as a scalar on their device.

    Cost: one pass over the gradients; two more, of which one writes, if they are clipped.

    Args:
        optimizer: Its parameters have gradients, or none at all.
        clip_norm: Scale the gradients down to this norm, after the norm was taken.
    """
    owners = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = _norm([owner.grad for owner in owners])
    if clip_norm is None:
        return norm
    if norm.device.type == "cpu" and float(norm) < SURELY_BELOW * clip_norm:
        return norm  # elsewhere the device would have to be waited for
    return clip_grad_norm_(owners, clip_norm)


def _norm(gradients: list[Tensor]) -> Tensor:
    if not gradients:
        return torch.tensor(0.0)
    norms = torch._foreach_norm(gradients)
    device = norms[0].device
    norm: Tensor = torch.linalg.vector_norm(torch.stack([one.to(device) for one in norms]))
    return norm
