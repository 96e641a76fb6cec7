"""The norm of all gradients, before clipping."""

from __future__ import annotations

import math

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


@pytest.mark.parametrize("dtypes", [(torch.float32, torch.float64), (torch.bfloat16,) * 2])
def test_norm_is_that_of_pytorch(dtypes: tuple[torch.dtype, ...]) -> None:
    """To the last bit, for gradients of one type and of several, and those clipped are, too."""
    own, theirs = (optimizer_of(dtypes, shape=(3, 5)) for _ in range(2))
    expected = torch.nn.utils.clip_grad_norm_(theirs.param_groups[0]["params"], 0.5)
    assert torch.equal(total_norm(own, clip_norm=0.5), expected)
    pairs = zip(*(one.param_groups[0]["params"] for one in (own, theirs)), strict=True)
    assert all(torch.equal(one.grad, other.grad) for one, other in pairs)


def test_gradients_just_at_the_limit_are_clipped_as_by_pytorch() -> None:
    """By a norm that is a millionth larger."""
    optimizer = optimizer_with(3.0, 4.0)
    total_norm(optimizer, clip_norm=5.0)
    assert gradients_of(optimizer)[0] < 3.0


def test_norm_that_is_no_number_spoils_all_gradients() -> None:
    """As clipping does in PyTorch."""
    optimizer = optimizer_with(3.0, float("nan"))
    assert math.isnan(float(total_norm(optimizer, clip_norm=5.0)))
    assert all(map(math.isnan, gradients_of(optimizer)))


def optimizer_of(dtypes: tuple[torch.dtype, ...], shape: tuple[int, ...]) -> torch.optim.Optimizer:
    torch.manual_seed(0)
    parameters = [torch.nn.Parameter(torch.zeros(shape, dtype=dtype)) for dtype in dtypes]
    for parameter in parameters:
        parameter.grad = torch.randn(shape, dtype=parameter.dtype)
    return torch.optim.SGD(parameters, lr=0.1)
