"""The norm of all gradients of an optimizer."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

__all__ = ["total_norm"]


def total_norm(optimizer: torch.optim.Optimizer, *, clip_norm: float | None = None) -> Tensor:
    """Return the L2 norm of all gradients of `optimizer`, as a scalar on their device.

    Cost: one pass over the gradients; two that write as well if they are clipped.

    Args:
        optimizer: Its parameters have gradients, or none at all.
        clip_norm: Scale the gradients down to this norm, after the norm was taken.
    """
    owners = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    if clip_norm is not None:
        return clip_grad_norm_(owners, clip_norm)
    gradients = [owner.grad for owner in owners]
    if hasattr(torch.nn.utils, "get_total_norm"):  # from PyTorch 2.6 on
        return torch.nn.utils.get_total_norm(gradients)
    norms = [torch.linalg.vector_norm(gradient) for gradient in gradients]
    return torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.tensor(0.0)
