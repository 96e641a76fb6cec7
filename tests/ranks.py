"""What the multi-process tests run on every rank."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch.utils.data import DataLoader, Dataset

from lightning_elche import ElCheStrategy


class Numbered(Dataset[tuple[torch.Tensor, int]]):
    """Samples that tell their index: 8 features, a function of the index."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        generator = torch.Generator().manual_seed(index)
        return torch.randn(8, generator=generator), index


class Recorder(LightningModule):
    """A small network that remembers the samples it saw; rank r takes `delays_ms[r]` per step.

    `ELCHE_DELAYS_SEED` in the environment draws other delays, for tests that hold for any.
    """

    def __init__(self, delays_ms: Sequence[float] = (0.0,)) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(8, 8), torch.nn.BatchNorm1d(8), torch.nn.Tanh(), torch.nn.Linear(8, 1)
        )
        self.delays_ms = delays_of(os.environ.get("ELCHE_DELAYS_SEED")) or delays_ms
        self.ids: dict[int, list[int]] = {}

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        features, ids = batch
        self.ids.setdefault(self.current_epoch, []).extend(ids.tolist())
        time.sleep(self.delays_ms[self.global_rank % len(self.delays_ms)] / 1000.0)
        loss = (self.layers(features).squeeze(1) - features.sum(1)).square().mean()
        self.log("train_loss", loss, on_step=False, on_epoch=True, sync_dist=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        features, _ = batch
        loss = (self.layers(features).squeeze(1) - features.sum(1)).square().mean()
        self.log("val_loss", loss, sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Fails(Recorder):
    """Raises on one rank after a few steps, and spoils its parameters before."""

    def __init__(self, rank: int) -> None:
        super().__init__((2.0, 8.0))
        self.failing_rank = rank

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        if self.global_rank == self.failing_rank and batch_idx == 5:
            self.layers[0].weight.data.fill_(torch.nan)
            raise ArithmeticError("a spoiled batch")
        return super().training_step(batch, batch_idx)


class TwoOptimizers(Recorder):
    """Manual optimization with two optimizers, stepped in turn."""

    def __init__(self, delays_ms: Sequence[float] = (1.0, 3.0)) -> None:
        super().__init__(delays_ms)
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = super().training_step(batch, batch_idx)
        for optimizer in self.optimizers():
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in self.optimizers():
            optimizer.step()
        return loss

    def configure_optimizers(self) -> Any:
        first, second = self.layers[0].parameters(), self.layers[3].parameters()
        return [torch.optim.SGD(first, lr=0.01), torch.optim.SGD(second, lr=0.01)]


def delays_of(seed: str | None) -> Sequence[float]:
    draw = random.Random(seed).uniform
    return [draw(1.0, 6.0) for _ in range(4)] if seed else ()


def make_loader(size: int, *, batch_size: int = 4, **options: Any) -> DataLoader[Any]:
    return DataLoader(Numbered(size), batch_size=batch_size, shuffle=True, **options)


def make_trainer(world_size: int, **options: Any) -> Trainer:
    """A quiet Trainer on the CPU; the options override."""
    quiet = {
        "accelerator": "cpu",
        "devices": world_size,
        "strategy": ElCheStrategy(timeout_s=30.0),
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    return Trainer(**{**quiet, **options})


def fit(
    world_size: int,
    *,
    size: int = 200,
    delays_ms: Sequence[float] = (1.0,),
    loader: dict[str, Any] | None = None,
    val_size: int = 0,
    model: Recorder | None = None,
    ckpt_path: str | None = None,
    **options: Any,
) -> tuple[Trainer, Recorder]:
    """Fit a Recorder and return it with its Trainer."""
    seed_everything(7, verbose=False)
    model = model if model is not None else Recorder(delays_ms)
    trainer = make_trainer(world_size, **options)
    val = DataLoader(Numbered(val_size), batch_size=4) if val_size else None
    trainer.fit(model, make_loader(size, **(loader or {})), val, ckpt_path=ckpt_path)
    return trainer, model


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def move_to_node(rank: int) -> None:
    """Make this process rank 0 or 1 of node 0 or 1."""
    node, local_rank = divmod(rank, 2)
    os.environ.update(NODE_RANK=str(node), LOCAL_RANK=str(local_rank), LOCAL_WORLD_SIZE="2")
