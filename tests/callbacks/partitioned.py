"""A model whose training draws random numbers, and fits that save and resume it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch.utils.data import DataLoader

from lightning_elche.callbacks.partition_checkpoint import PartitionCheckpoint
from lightning_elche.partition.policy import CheckpointPolicy
from lightning_elche.partition.store_config import StoreConfig
from tests.ranks import Numbered, make_trainer

__all__ = [
    "Acts",
    "Drawing",
    "Noisy",
    "Validating",
    "ends_equal",
    "fit_drawing",
    "names_in",
    "saver_of",
]

KEEP_ALL = StoreConfig(max_retained=1000, durability="flush")


class Drawing(LightningModule):
    """Has dropout and batch normalisation."""

    def __init__(self, *, has_schedule: bool = False, fails_at: int | None = None) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(8, 8),
            torch.nn.BatchNorm1d(8),
            torch.nn.Dropout(0.3),
            torch.nn.Linear(8, 1),
        )
        self.has_schedule, self.fails_at = has_schedule, fails_at
        self.ids: list[list[int]] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        features, ids = batch
        if len(self.ids) == self.fails_at:
            raise ArithmeticError("a spoiled batch")
        self.ids.append(ids.tolist())
        loss = self.layers(features).square().mean()
        self.log("loss", loss.detach())
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        if not self.has_schedule:
            return optimizer
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)]


class Validating(Drawing):
    """Draws random numbers when it is validated."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        torch.rand(3)


class Noisy(Numbered):
    """Adds noise to samples when they are loaded."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        features, index = super().__getitem__(index)
        return features + torch.rand(8), index


class Acts(Callback):
    """Calls a function at the end of the third batch."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def on_train_batch_end(self, *args: Any) -> None:
        if args[-1] == 2:
            self.function()


def saver_of(root: str | Path, *, every: int | None = 1, **options: Any) -> PartitionCheckpoint:
    policy = CheckpointPolicy(every_steps=every)
    return PartitionCheckpoint(root, **{"policy": policy, "store": KEEP_ALL, **options})


def fit_drawing(
    saver: PartitionCheckpoint,
    *,
    model: Drawing | None = None,
    data: Any = None,
    resume: str | Path | None = None,
    more: Iterable[Callback] = (),
    **options: Any,
) -> tuple[Trainer, Drawing]:
    """Fit for three epochs of six batches; a resumed fit has another seed."""
    seed_everything(7 if resume is None else 99, verbose=False)
    model = model or Drawing()
    quiet = {"strategy": "auto", "max_epochs": 3, "enable_checkpointing": True}
    trainer = make_trainer(1, callbacks=[*more, saver], **{**quiet, **options})
    if data is None:
        data = DataLoader(Numbered(24), batch_size=4, shuffle=True)
    val = DataLoader(Numbered(8), batch_size=4) if isinstance(model, Validating) else None
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several wait for each other on a core that a writer uses
    try:
        trainer.fit(model, data, val, ckpt_path=resume)
    finally:
        torch.set_num_threads(num_threads)
    return trainer, model


def ends_equal(first: tuple[Trainer, Drawing], second: tuple[Trainer, Drawing]) -> bool:
    """Whether two fits have ended with the same bits; the second saw what the first saw last."""
    seen = len(second[1].ids)
    return (
        _bits_equal(first[1].state_dict(), second[1].state_dict())
        and _bits_equal(_moments(first[0]), _moments(second[0]))
        and first[1].ids[len(first[1].ids) - seen :] == second[1].ids
    )


def names_in(root: str | Path) -> list[str]:
    return sorted(path.name for path in Path(root).glob("step-*"))


def _bits_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    pairs = zip(first.values(), second.values(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


def _moments(trainer: Trainer) -> dict[str, torch.Tensor]:
    states = trainer.optimizers[0].state_dict()["state"]
    return {f"{i}.{key}": value for i, own in states.items() for key, value in own.items()}
