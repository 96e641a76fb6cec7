"""What one optimizer step was like."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_elche.callbacks.gate_meter import StepMeter, StepReading, count_tokens


class Clock:
    def __init__(self) -> None:
        self.now = 10.0

    def __call__(self) -> float:
        return self.now


def optimizer_with(gradient: float, *, lr: float = 0.5) -> torch.optim.Optimizer:
    parameter = torch.nn.Parameter(torch.zeros(()))
    parameter.grad = torch.tensor(gradient)
    return torch.optim.SGD([parameter], lr=lr)


def make_meter(clock: Clock) -> StepMeter:
    return StepMeter(num_tokens=count_tokens, clock=clock)


def test_step_has_the_span_of_all_its_batches() -> None:
    """From the begin of the first to the end of the last, what lies between included."""
    clock = Clock()
    meter = make_meter(clock)
    for loss in (1.0, 3.0):
        meter.begin_batch(torch.zeros(8, 2))
        clock.now += 1.0
        meter.add_loss(torch.tensor(loss))
        if loss == 3.0:
            meter.add_optimizer(optimizer_with(-2.0))
        meter.end_batch(epoch=4)
    assert list(meter.readings(newest=True)) == [StepReading(2.0, 2.0, 0.5, 16, 2.0, 4)]


def test_batch_without_a_step_is_none() -> None:
    """Where `training_step` returned nothing, no backward pass was made."""
    meter = make_meter(Clock())
    meter.begin_batch(torch.zeros(8))
    meter.end_batch(epoch=0)
    assert list(meter.readings(newest=True)) == []


def test_optimizers_of_one_step_have_one_norm() -> None:
    """The root of the summed squares; the learning rate is that of the first."""
    meter = make_meter(Clock())
    meter.begin_batch(torch.zeros(1))
    meter.add_loss(torch.tensor(1.0))
    meter.add_optimizer(optimizer_with(3.0, lr=0.1))
    meter.add_optimizer(optimizer_with(4.0, lr=0.2))
    assert meter.peek() == (1.0, 5.0, 0.1)


def test_last_step_may_be_left_for_later() -> None:
    """A device that still computes is not waited for."""
    meter = make_meter(Clock())
    for loss in (1.0, 2.0):
        meter.begin_batch(torch.zeros(1))
        meter.add_loss(torch.tensor(loss))
        meter.add_optimizer(optimizer_with(1.0))
        meter.end_batch(epoch=0)
    assert [reading.train_loss for reading in meter.readings(newest=False)] == [1.0]
    assert [reading.train_loss for reading in meter.readings(newest=True)] == [2.0]


def test_loss_is_freed_of_its_factors() -> None:
    """Of gradient accumulation and loss scale."""
    meter = make_meter(Clock())
    meter.begin_batch(torch.zeros(1))
    meter.add_loss(torch.tensor(8.0), factor=0.25)
    meter.add_optimizer(optimizer_with(math.inf))
    assert meter.peek() == (2.0, math.inf, 0.5)


@pytest.mark.parametrize(
    ("batch", "tokens"),
    [
        ({"input_ids": torch.zeros(4, 16), "labels": torch.zeros(4)}, 64),
        ({"images": torch.zeros(5, 3, 2, 2)}, 5),
        ((torch.zeros(6, 2), torch.zeros(6)), 6),
        ([["a"], [torch.zeros(3)]], 3),
        (torch.tensor(1.0), 1),
        (["no", "tensors"], 0),
    ],
)
def test_tokens_are_counted_or_samples(batch: object, tokens: int) -> None:
    """Whatever the batch is made of."""
    assert count_tokens(batch) == tokens


@pytest.mark.cuda
def test_numbers_of_a_gpu_are_read_a_step_later() -> None:
    """As they were when the step was made."""
    meter = make_meter(Clock())
    loss = torch.tensor(1.0, device="cuda")
    meter.begin_batch(loss)
    meter.add_loss(loss)
    meter.add_optimizer(optimizer_with(2.0))
    meter.end_batch(epoch=0)
    loss += 1.0
    (reading,) = meter.readings(newest=True)
    assert (reading.train_loss, reading.grad_norm) == (1.0, 2.0)
