"""The tensors in optimizer states, in an order that is equal on every rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_elche.ops.digest import digest_number

__all__ = ["OptimizerTensors", "optimizer_tensors"]


@dataclass(frozen=True)
class OptimizerTensors:
    """What the states of optimizers hold.

    Attributes:
        moments: Floating-point tensors that belong to the elements of a parameter.
        counters: Scalars beside them, such as Adam's `step`.
        digest: A number that is equal where the layout is.
    """

    moments: list[Tensor]
    counters: list[Tensor]
    digest: int


def optimizer_tensors(optimizers: Sequence[torch.optim.Optimizer]) -> OptimizerTensors:
    """Collect the tensors, by parameter and name. Cost: O(parameters) Python."""
    moments, counters = [], []
    layout = []
    for optimizer in optimizers:
        params = [param for group in optimizer.param_groups for param in group["params"]]
        for index, param in enumerate(params):
            state = optimizer.state.get(param, {})
            for name in sorted(state):
                value = state[name]
                if not isinstance(value, Tensor):
                    continue
                layout.append(f"{index} {name} {tuple(value.shape)} {value.dtype}")
                if name == "step" or (value.dim() == 0 and param.dim() > 0):
                    counters.append(value)
                elif value.is_floating_point():
                    moments.append(value)
        layout.append("|")
    return OptimizerTensors(moments, counters, digest_number(";".join(layout)))
