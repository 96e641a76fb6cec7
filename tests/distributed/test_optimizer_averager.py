"""Averaging of optimizer states."""

from __future__ import annotations

import torch

from lightning_elche.distributed.optimizer_averager import OptimizerAverager
from tests.distributed.threads import FakeGroup, average_by, run_ranks


def adam_of(value: float, steps: int) -> torch.optim.Optimizer:
    param = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.Adam([param], lr=0.1, betas=(0.0, 0.0))
    for _ in range(steps):
        param.grad = torch.full((2,), value)
        optimizer.step()
    return optimizer


def averaged_states(weights: list[float]) -> list[tuple[float, float]]:
    """Average Adam's state of two ranks (gradient 1 and 5, 2 and 6 steps): (moment, counter)."""
    group = FakeGroup(2)

    def average(rank: int) -> tuple[float, float]:
        optimizer = adam_of((1.0, 5.0)[rank], (2, 6)[rank])
        averager = OptimizerAverager(lambda: [optimizer], group.of(rank))
        averager.layout()
        average_by(averager, weights)
        (state,) = optimizer.state.values()
        return state["exp_avg"][0].item(), state["step"].item()

    return run_ranks(2, average)


def test_moments_take_the_weights_and_counters_the_maximum() -> None:
    """Gradients 1 and 5 with weights 3 and 1 average to 2; six steps are the larger count."""
    assert averaged_states([3.0, 1.0]) == [(2.0, 6.0)] * 2


def test_rank_of_weight_zero_adopts_the_state_of_the_others() -> None:
    """Neither its moments nor its counter count."""
    assert averaged_states([1.0, 0.0]) == [(1.0, 2.0)] * 2


def test_states_are_due_at_every_nth_event() -> None:
    """Counted from the first event on; the n-th is the first at which they are averaged."""
    collectives = FakeGroup(1).of(0)
    due = [
        [OptimizerAverager(list, collectives, every=every).is_due(index) for index in range(4)]
        for every in (1, 2, 3)
    ]
    assert due == [[True] * 4, [False, True, False, True], [False, False, True, False]]


def test_layout_is_read_again_after_states_were_loaded() -> None:
    """A checkpoint replaces the tensors; the new ones are averaged."""
    group = FakeGroup(2)

    def average(rank: int) -> float:
        optimizer = adam_of(1.0, 1)
        averager = OptimizerAverager(lambda: [optimizer], group.of(rank))
        averager.layout()
        optimizer.load_state_dict(adam_of((2.0, 4.0)[rank], 1).state_dict())
        averager.layout()
        average_by(averager, [1.0, 1.0])
        return next(iter(optimizer.state.values()))["exp_avg"][0].item()

    assert run_ranks(2, average) == [3.0, 3.0]
