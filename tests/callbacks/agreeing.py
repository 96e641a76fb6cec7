"""Ranks of which one comes to hold another bit than the rest."""

from __future__ import annotations

import os
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader

from lightning_elche import CadenceConfig, ElCheStrategy
from lightning_elche.partition.errors import ReplicaDivergence
from lightning_elche.partition.replicas import ReplicaConfig
from lightning_elche.partition.store_config import StoreConfig
from tests.callbacks.partitioned import Drawing, saver_of
from tests.ranks import Numbered, make_trainer

__all__ = ["train_flipped"]

CADENCE = CadenceConfig(anchor=2, max_anchor=2)


class Flips(Callback):
    """Flips a bit of a weight of one rank, once: after an average, or before a step is counted."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.has_flipped = False

    def on_average_end(self, event: Any) -> None:
        if event.index == 1:
            self.flip()

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if args[-1] == 2 and not getattr(trainer.strategy, "is_running", False):
            self.flip()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.is_own = trainer.global_rank == self.rank
        self.weight = pl_module.layers[0].weight

    def flip(self) -> None:
        if self.is_own and not self.has_flipped:
            self.weight.data.view(torch.int32)[0, 0] ^= 1 << 20
        self.has_flipped = True


def train_flipped(
    root: str, *, ways: tuple[str, ...], rank: int = 1, is_ddp: bool = False
) -> list[dict[str, Any]]:
    """Return what a rank knows at the end of a fit for each way to deal with a difference."""
    world_size = os.environ["WORLD_SIZE"]
    known = []
    for way in ways:
        os.environ["WORLD_SIZE"] = world_size  # Lightning removes it at the end of a fit
        known.append(_train(f"{root}/{way}", int(world_size), way, rank=rank, is_ddp=is_ddp))
    return known


def _train(root: str, world_size: int, way: Any, *, rank: int, is_ddp: bool) -> dict[str, Any]:
    saver = saver_of(
        root,
        every=4,
        store=StoreConfig(durability="flush"),
        replicas=ReplicaConfig(on_disagree=way),
    )
    torch.manual_seed(7)
    model, flips = Drawing(), Flips(rank)
    trainer = make_trainer(
        world_size,
        strategy="ddp" if is_ddp else ElCheStrategy(cadence=CADENCE, timeout_s=30.0),
        callbacks=[flips, saver],
        enable_checkpointing=True,
    )
    error = None
    try:
        trainer.fit(model, DataLoader(Numbered(96), batch_size=4, shuffle=True))
    except ReplicaDivergence as err:
        error = err
    return {
        "error": None if error is None else (error.step, error.suspects, error.values),
        "weight": model.layers[0].weight.detach().numpy().tobytes(),
        "has_flipped": flips.has_flipped,
    }
