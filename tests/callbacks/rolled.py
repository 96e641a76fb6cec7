"""A model with all kinds of state, and batches of which some are bad."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.plugins import MixedPrecision
from torch.utils.data import DataLoader

from tests.ranks import make_trainer

__all__ = ["Stateful", "assert_same", "batches", "fit_rolled", "scaled", "state_of"]

Batch = dict[str, torch.Tensor]

OPTIMIZERS: Mapping[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.9),
}
SCHEDULERS: Mapping[str, Callable[..., Any]] = {
    "cosine": lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40),
    "onecycle": lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.01, total_steps=40
    ),
}


class Stateful(LightningModule):
    """Has dropout, BatchNorm, and a buffer that no checkpoint holds."""

    counter: torch.Tensor
    bad_at: Sequence[tuple[int, int]] = ()  # epoch and batch in it

    def __init__(
        self, optimizer: str = "adamw", scheduler: str | None = "cosine", interval: str = "step"
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.2)
        )
        self.head = torch.nn.Linear(8, 1)
        self.register_buffer("counter", torch.zeros(2), persistent=False)
        self.register_buffer("mask", torch.tensor([0.0, -math.inf]))
        self.kinds = (optimizer, scheduler, interval)
        self.losses: list[float] = []

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        x = batch["x"] * math.nan if (self.current_epoch, batch_idx) in self.bad_at else batch["x"]
        self.counter = self.counter + x.mean()
        loss = (self.head(self.layers(x)).squeeze(1) - batch["y"]).square().mean()
        self.losses.append(float(loss.detach()))
        weights = self.head.weight.sum()
        # Of the value 0, with a gradient that is no number, or huge.
        hidden = {"no_gradient": (0.0 * weights).sqrt(), "kick": 1e6 * (weights - weights.detach())}
        return loss + sum(value for name, value in hidden.items() if name in batch)

    def configure_optimizers(self) -> Any:
        kind, scheduler, interval = self.kinds
        optimizer = OPTIMIZERS[kind](self.parameters())
        if scheduler is None:
            return optimizer
        config = {"scheduler": SCHEDULERS[scheduler](optimizer), "interval": interval}
        return {"optimizer": optimizer, "lr_scheduler": config}


def batches(num: int = 12, **bad: Sequence[int]) -> list[Batch]:
    """Return batches; those named are bad.

    Args:
        num: How many.
        **bad: Places of batches with `nan` inputs or `huge` targets, and of those whose loss is
            as others' but has `no_gradient` that is a number, or one that is a `kick`.
    """
    generator = torch.Generator().manual_seed(1)
    made = []
    for index in range(num):
        x = torch.randn(8, 4, generator=generator)
        y = x.sum(1) + 0.1 * torch.randn(8, generator=generator)
        if index in bad.get("nan", ()):
            x = x * math.nan
        batch = {"x": x, "y": y * 1e4 if index in bad.get("huge", ()) else y}
        hidden = [name for name in ("no_gradient", "kick") if index in bad.get(name, ())]
        made.append(batch | {name: torch.ones(()) for name in hidden})
    return made


def scaled() -> MixedPrecision:
    """Return 16-bit precision with a loss scaler that works on the CPU."""
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=4)
    return MixedPrecision("16-mixed", "cpu", scaler=scaler)


def fit_rolled(
    data: Sequence[Any],
    *callbacks: Callback,
    model: LightningModule | None = None,
    epochs: int = 1,
    **options: Any,
) -> tuple[Trainer, Any]:
    """Fit on batches as they are."""
    seed_everything(3, verbose=False)
    model = Stateful() if model is None else model
    options = {"strategy": "auto", "max_epochs": epochs, **options}
    trainer = make_trainer(options.pop("devices", 1), callbacks=[*callbacks], **options)
    trainer.fit(model, DataLoader(list(data), batch_size=None))
    return trainer, model


def state_of(trainer: Trainer) -> dict[str, Any]:
    """Return all that a next step depends on."""
    module = trainer.lightning_module
    named = [*module.named_parameters(), *module.named_buffers()]
    texts = {
        "schedulers": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
        "precision": trainer.precision_plugin.state_dict(),
    }
    return {
        "tensors": {name: tensor.detach().clone() for name, tensor in named},
        "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
        "random": torch.get_rng_state(),
        "texts": list(repr(texts).encode()),
    }


def assert_same(ours: Trainer, other: Trainer) -> None:
    """Check that two fits have ended in the same state, bit for bit."""
    torch.testing.assert_close(state_of(ours), state_of(other), rtol=0.0, atol=0.0)
