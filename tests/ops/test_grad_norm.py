"""The norm of all gradients, before clipping."""

from __future__ import annotations

import pytest
import torch

from lightning_elche.ops.grad_norm import total_norm


def optimizer_with(*gradients: float | None) -> torch.optim.Optimizer:
    parameters = [torch.nn.Parameter(torch.zeros(())) for _ in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = None if gradient is None else torch.tensor(gradient)
    halves = [{"params": parameters[:1]}, {"params": parameters[1:]}]
    return torch.optim.SGD(halves, lr=0.1)


def gradients_of(optimizer: torch.optim.Optimizer) -> list[float]:
    return [float(p.grad) for group in optimizer.param_groups for p in group["params"]]


def test_norm_is_over_all_groups() -> None:
    """Parameters without a gradient do not count."""
    assert float(total_norm(optimizer_with(3.0, None, 4.0))) == 5.0


def test_norm_without_gradients_is_zero() -> None:
    """Nothing moves."""
    assert float(total_norm(optimizer_with(None, None))) == 0.0


def test_norm_is_that_before_clipping() -> None:
    """And the gradients have the wanted norm afterwards."""
    optimizer = optimizer_with(3.0, 4.0)
    assert float(total_norm(optimizer, clip_norm=1.0)) == 5.0
    assert gradients_of(optimizer) == pytest.approx([0.6, 0.8], abs=1e-6)


def test_gradients_below_the_limit_stay() -> None:
    """Clipping only shortens."""
    optimizer = optimizer_with(3.0, 4.0)
    total_norm(optimizer, clip_norm=6.0)
    assert gradients_of(optimizer) == [3.0, 4.0]


def test_older_torch_has_the_same_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before PyTorch 2.6 there is no function for it."""
    expected = total_norm(optimizer_with(3.0, 4.0, 12.0))
    monkeypatch.delattr(torch.nn.utils, "get_total_norm", raising=False)
    assert float(total_norm(optimizer_with(3.0, 4.0, 12.0))) == float(expected) == 13.0
    assert float(total_norm(optimizer_with(None))) == 0.0
