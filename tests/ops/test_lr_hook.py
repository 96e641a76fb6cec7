"""Learning rates are scaled while an optimizer steps, and at no other time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from lightning_elche.ops.lr_hook import StepScale

SCHEDULERS: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "lambda": lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 / (1 + step)),
    "onecycle": lambda optimizer: lr_scheduler.OneCycleLR(
        optimizer, 0.5, total_steps=8, cycle_momentum=False
    ),
    "sequential": lambda optimizer: lr_scheduler.SequentialLR(
        optimizer,
        [lr_scheduler.ConstantLR(optimizer), lr_scheduler.ExponentialLR(optimizer, 0.5)],
        [2],
    ),
    "cosine": lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 8),
    "plateau": lambda optimizer: lr_scheduler.ReduceLROnPlateau(optimizer, patience=0),
}


def taken(name: str, scale: float) -> tuple[list[float], list[float]]:
    """Return the rates of steps as schedulers know them, and as they took effect."""
    parameter = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))
    optimizer = torch.optim.SGD([parameter], lr=0.25)
    scheduler = SCHEDULERS[name](optimizer)
    scaled = StepScale([optimizer])
    scaled.scale = scale
    known, effective = [], []
    for _ in range(6):
        known.append(float(optimizer.param_groups[0]["lr"]))
        before = parameter.item()
        parameter.grad = torch.ones((), dtype=torch.float64)
        optimizer.step()
        effective.append(before - parameter.item())
        scheduler.step(*([1.0] if name == "plateau" else []))
    return known, effective


# Before torch 2.6 `SequentialLR` calls others in a way that torch deprecates.
@pytest.mark.filterwarnings("ignore:The epoch parameter in")
@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_step_is_scaled_under_a_scheduler(name: str) -> None:
    """The scheduler goes on as if nothing had happened."""
    known, effective = taken(name, 0.5)
    assert known == taken(name, 1.0)[0]
    assert effective == pytest.approx([0.5 * rate for rate in known], rel=1e-9)


def test_rate_in_a_tensor_is_scaled_and_put_back() -> None:
    """The very tensor is back, with its value."""
    parameter, rate = torch.nn.Parameter(torch.zeros(())), torch.tensor(0.5)
    optimizer = torch.optim.Adam([parameter], lr=rate)
    scaled = StepScale([optimizer])
    scaled.scale = 0.5
    parameter.grad = torch.ones(())
    optimizer.step()
    assert parameter.item() == pytest.approx(-0.25, rel=1e-5)
    assert optimizer.param_groups[0]["lr"] is rate
    assert float(rate) == 0.5


def test_rate_is_put_back_after_a_step_that_failed() -> None:
    """By the next step, which is scaled once."""
    parameter = torch.nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scaled = StepScale([optimizer])
    scaled.scale = 0.5

    def fail() -> float:
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        optimizer.step(fail)
    parameter.grad = torch.ones(())
    optimizer.step()
    assert (parameter.item(), optimizer.param_groups[0]["lr"]) == (-0.5, 1.0)


def test_nothing_is_left_after_close() -> None:
    """Not even what a failed step has left."""
    parameter = torch.nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scaled = StepScale([optimizer])
    scaled.scale = 0.5
    scaled.close()
    parameter.grad = torch.ones(())
    optimizer.step()
    assert parameter.item() == -1.0
