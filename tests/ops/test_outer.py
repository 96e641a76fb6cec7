"""The outer step against PyTorch's SGD."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from lightning_elche.control.outer import OuterOptimizer
from lightning_elche.ops.outer import outer_step_

ROUNDS = 6


def ours(config: OuterOptimizer) -> Iterator[Tensor]:
    """Yield where each round ends; replicas move by random steps from where the last one did."""
    generator = torch.Generator().manual_seed(0)
    last = torch.randn(1001, generator=generator)
    momentum = torch.zeros_like(last) if config.momentum else None
    for _ in range(ROUNDS):
        average = last + torch.randn(1001, generator=generator)
        outer_step_(average, last=last, momentum=momentum, config=config)
        last.copy_(average)
        yield average


def of_torch(config: OuterOptimizer) -> Iterator[Tensor]:
    """Yield the same, with `last - average` as the gradient of `torch.optim.SGD`."""
    generator = torch.Generator().manual_seed(0)
    param = torch.randn(1001, generator=generator).requires_grad_()
    options = {"lr": config.lr, "momentum": config.momentum, "nesterov": config.nesterov}
    sgd = torch.optim.SGD([param], **options)  # type: ignore[arg-type]
    for _ in range(ROUNDS):
        before = param.detach()
        average = before + torch.randn(1001, generator=generator)
        param.grad = before - average
        sgd.step()
        yield param.detach().clone()


@pytest.mark.parametrize("nesterov", [True, False])
def test_rounds_equal_sgd_exactly(nesterov: bool) -> None:
    """With powers of two no product is rounded, so that fused and separate operations agree."""
    config = OuterOptimizer(lr=0.5, momentum=0.5, nesterov=nesterov)
    pairs = zip(ours(config), of_torch(config), strict=True)
    assert all(torch.equal(own, other) for own, other in pairs)


@pytest.mark.parametrize("nesterov", [True, False])
def test_rounds_equal_sgd_with_the_published_values(nesterov: bool) -> None:
    """Up to one rounding per operation, where PyTorch may fuse two of them."""
    config = OuterOptimizer(nesterov=nesterov)
    for own, other in zip(ours(config), of_torch(config), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-6, atol=2e-6)


def test_learning_rate_one_without_momentum_is_the_average() -> None:
    """Up to the rounding of `last - (last - average)`: two roundings of float32."""
    generator = torch.Generator().manual_seed(0)
    last, average = torch.randn(2, 1001, generator=generator)
    result = average.clone()
    config = OuterOptimizer(lr=1.0, momentum=0.0)
    outer_step_(result, last=last, momentum=None, config=config)
    bound = 2.0**-24 * ((last - average).abs() + average.abs() + 1e-6)
    assert bool(((result - average).abs() <= 1.01 * bound).all())
