"""Fits in which memory runs out, or parameters are spoiled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_elche import ElCheStrategy
from lightning_elche.callbacks.fault_guard import FaultGuard
from lightning_elche.coordination.faults import FaultConfig
from tests.ranks import make_trainer

TOO_MUCH = 1 << 60

Place = Literal["forward", "backward"]


class Needs(torch.autograd.Function):
    """Takes more memory in the backward pass than there is."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(_: Any, grad: Tensor) -> Tensor:
        torch.empty(TOO_MUCH)
        return grad


class Hungry(LightningModule):
    """Needs more memory for some batches than any machine has.

    Args:
        at: Samples of which a batch begins with, and where in its step.
        worthless: Batches whose gradients are zero.
    """

    def __init__(
        self, at: dict[int, Place] | None = None, *, worthless: Sequence[int] = ()
    ) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)
        )
        self.at, self.worthless = at or {}, worthless

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        index = int(batch[0, 0])
        y = self.layers(batch[:, 1:]).square().mean()
        place = self.at.get(index)
        if place == "forward":
            torch.empty(TOO_MUCH)
        elif place == "backward":
            y = Needs.apply(y)
        return y * float(index not in self.worthless)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)


class Guarding(Callback):
    """Calls a `FaultGuard` as `Coordination` does."""

    def __init__(self, config: FaultConfig | None = None) -> None:
        self.guard = FaultGuard(config)
        for hook in ("on_train_start", "on_train_end", "on_exception", "teardown"):
            setattr(self, hook, getattr(self.guard, hook))

    def on_average_end(self, event: Any) -> None:
        self.guard.on_average_end(event)


def numbered(num: int, *, left_out: Sequence[int] = ()) -> list[Tensor]:
    """Return batches of five numbers a row, the first of which is the number of the batch."""
    generator = torch.Generator().manual_seed(1)
    batches = torch.randn(num, 6, 5, generator=generator)
    batches[:, :, 0] = torch.arange(num).unsqueeze(1)
    return [batch for index, batch in enumerate(batches) if index not in left_out]


def fit_hungry(
    model: LightningModule,
    data: Sequence[Tensor] | DataLoader[Any],
    *callbacks: Callback,
    **options: Any,
) -> Trainer:
    """Fit on one device, with weights that are always the same."""
    seed_everything(3, verbose=False)
    for layer in model.modules():
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    options = {"strategy": ElCheStrategy(), **options}
    trainer = make_trainer(1, callbacks=list(callbacks), **options)
    is_loader = isinstance(data, DataLoader)
    trainer.fit(model, data if is_loader else DataLoader(list(data), batch_size=None))
    return trainer
