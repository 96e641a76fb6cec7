"""The tensors in optimizer states."""

from __future__ import annotations

import pytest
import torch

from lightning_elche.ops.learning_rate import scale_learning_rates
from lightning_elche.ops.optimizer_state import optimizer_tensors


def stepped(kind: type[torch.optim.Optimizer], *shapes: tuple[int, ...]) -> torch.optim.Optimizer:
    params = [torch.ones(shape, requires_grad=True) for shape in shapes]
    optimizer = kind(params, lr=0.1)  # type: ignore[call-arg]
    sum(param.sum() for param in params).backward()
    optimizer.step()
    return optimizer


def test_moments_and_counters_of_adam_are_told_apart() -> None:
    """Two moments and one counter for each parameter."""
    tensors = optimizer_tensors([stepped(torch.optim.Adam, (2, 3), (4,))])
    assert [tuple(moment.shape) for moment in tensors.moments] == [(2, 3), (2, 3), (4,), (4,)]
    assert [counter.item() for counter in tensors.counters] == [1.0, 1.0]


@pytest.mark.parametrize("shape", [(1,), ()])
def test_moments_of_a_single_element_are_no_counters(shape: tuple[int, ...]) -> None:
    """A bias of one element, or a scalar parameter, has moments like any other."""
    tensors = optimizer_tensors([stepped(torch.optim.Adam, shape)])
    assert [tuple(moment.shape) for moment in tensors.moments] == [shape, shape]
    assert [counter.item() for counter in tensors.counters] == [1.0]


def test_optimizer_without_state_has_no_tensors() -> None:
    """Plain SGD remembers nothing."""
    tensors = optimizer_tensors([stepped(torch.optim.SGD, (2,))])
    assert tensors.moments == tensors.counters == []


def test_digest_tells_layouts_apart() -> None:
    """A parameter without a step, or of another shape, changes the digest."""
    first, other = stepped(torch.optim.Adam, (2,), (3,)), stepped(torch.optim.Adam, (2,), (4,))
    same = stepped(torch.optim.Adam, (2,), (3,))
    fresh = torch.optim.Adam([torch.ones(2, requires_grad=True)], lr=0.1)
    digests = [optimizer_tensors([o]).digest for o in (first, same, other, fresh)]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_learning_rate_is_scaled_with_its_schedule() -> None:
    """The schedule goes on from the scaled rate."""
    optimizer = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 / (1 + step))
    scale_learning_rates([optimizer], [schedule], 4.0)
    rates = [optimizer.param_groups[0]["lr"]]
    optimizer.step()
    schedule.step()
    assert [*rates, optimizer.param_groups[0]["lr"]] == [0.4, 0.2]
