"""The tensors in optimizer states, in an order that is equal on every rank."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["OptimizerTensors", "optimizer_tensors"]

EXACT_BITS = 52  # of an integer in a float64


@dataclass(frozen=True)
class OptimizerTensors:
    """What the states of optimizers hold.

    Attributes:
        moments: Floating-point tensors of more than one element.
        counters: Tensors of one element, such as Adam's `step`.
        digest: A number that is equal where the layout is.
    """

    moments: list[Tensor]
    counters: list[Tensor]
    digest: int


def optimizer_tensors(optimizers: Sequence[torch.optim.Optimizer]) -> OptimizerTensors:
    """Collect the tensors, by parameter and name. Cost: O(parameters) Python."""
    moments, counters = [], []
    layout = hashlib.sha256()
    for optimizer in optimizers:
        params = [param for group in optimizer.param_groups for param in group["params"]]
        for index, param in enumerate(params):
            state = optimizer.state.get(param, {})
            for name in sorted(state):
                value = state[name]
                if not isinstance(value, Tensor):
                    continue
                layout.update(f"{index} {name} {tuple(value.shape)} {value.dtype};".encode())
                if value.numel() == 1:
                    counters.append(value)
                elif value.is_floating_point():
                    moments.append(value)
        layout.update(b"|")
    digest = int.from_bytes(layout.digest(), "big") % 2**EXACT_BITS
    return OptimizerTensors(moments, counters, digest)
