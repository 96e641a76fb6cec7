"""Models with several losses, and how they are fitted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from tests.ops.published import orders_of, published
from tests.ranks import make_trainer

__all__ = ["FirstGradient", "ThreeTasks", "fit", "flat", "seeded", "trainer_with"]

NAMES = ("a", "b", "c")


class ThreeTasks(LightningModule):
    """A trunk and three heads, whose losses often are in conflict.

    `form` is how the losses are returned: "sum", "list", "tuple", "dict", "losses", "named".
    """

    def __init__(self, form: str = "list", *, lr: float = 0.05, scale: float = 1.0) -> None:
        super().__init__()
        self.form, self.lr, self.loss_scale = form, lr, scale
        self.trunk = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh())
        self.heads = torch.nn.ModuleList(torch.nn.Linear(8, 1) for _ in NAMES)

    def losses(self, batch: Sequence[Tensor]) -> list[Tensor]:
        features, targets = batch
        hidden = self.trunk(features)
        found = [
            (head(hidden).float().squeeze(1) - targets[:, task]).square().mean()
            for task, head in enumerate(self.heads)
        ]
        return [loss * self.loss_scale for loss in found]

    def training_step(self, batch: Sequence[Tensor]) -> Any:
        losses = self.losses(batch)
        named = dict(zip(NAMES, losses, strict=False))
        forms = {
            "list": losses,
            "tuple": tuple(losses),
            "dict": named,
            "losses": {"losses": losses, "hidden": losses[0] * 2.0},
            "named": {"losses": named, "note": "kept"},
        }
        return forms[self.form] if self.form in forms else sum(losses)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.lr)


def trainer_with(*callbacks: Callback, **options: Any) -> Trainer:
    return make_trainer(1, **{"strategy": "auto", "callbacks": list(callbacks), **options})


def fit(
    model: LightningModule | None = None,
    *callbacks: Callback,
    batches: int = 6,
    ckpt_path: str | None = None,
    **options: Any,
) -> tuple[Trainer, Any]:
    """Fit from the same parameters on the same data, unless `model` was given."""
    seed_everything(3, verbose=False)
    model = ThreeTasks() if model is None else model
    generator = torch.Generator().manual_seed(5)
    data = TensorDataset(
        torch.randn(4 * batches, 4, generator=generator),
        torch.randn(4 * batches, 3, generator=generator),
    )
    trainer = trainer_with(*callbacks, **options)
    trainer.fit(model, DataLoader(data, batch_size=4), ckpt_path=ckpt_path)
    return trainer, model


class FirstGradient(Callback):
    """Keeps the trunk's gradient of the first step, and what PCGrad as published makes of it.

    `own` is what the optimizer gets, `published` is computed aside, from the same batch.
    """

    own: Tensor
    published: Tensor
    plain: Tensor

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx > 0:
            return
        trunk = list(pl_module.trunk.parameters())
        with trainer.precision_plugin.train_step_context():
            losses = pl_module.losses(batch)
        rows = [
            torch.cat([g.flatten() for g in torch.autograd.grad(loss, trunk, retain_graph=True)])
            for loss in losses
        ]
        vectors = [row.double().tolist() for row in rows]
        self.published = torch.tensor(published(vectors, orders_of(len(rows), 0)))
        self.plain = torch.stack(rows).sum(0)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
        if not hasattr(self, "own"):
            grads = [parameter.grad.flatten() for parameter in pl_module.trunk.parameters()]
            self.own = torch.cat(grads).clone()


def flat(model: torch.nn.Module) -> Tensor:
    """Return all parameters as one vector."""
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def seeded(*arguments: Any, **options: Any) -> ThreeTasks:
    """Return a model with the parameters that every other one has."""
    seed_everything(3, verbose=False)
    return ThreeTasks(*arguments, **options)
