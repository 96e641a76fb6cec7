"""Where recipes run, and what comes of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from lightning_elche import ElCheStrategy
from tests.ranks import Numbered, Recorder, make_loader, make_trainer

__all__ = ["SIZE", "Bench", "Plain", "Recipe", "outcome_of", "taken_into"]

SIZE = 160  # samples of an epoch, 40 batches


@dataclass
class Bench:
    """Where a recipe runs.

    Attributes:
        world_size: Number of ranks.
        delays_ms: What a step of each rank takes.
        folder: For the files of the recipe, common to all ranks.
    """

    world_size: int
    delays_ms: tuple[float, ...]
    folder: Path

    def trainer(self, **options: Any) -> Trainer:
        strategy = ElCheStrategy(timeout_s=20.0)
        defaults = {"strategy": strategy, "default_root_dir": self.folder}
        return make_trainer(self.world_size, **{**defaults, **options})

    def fit(self, model: Any = None, loader: Any = None, **options: Any) -> dict[str, Any]:
        """Train, and return what must be equal on all ranks and what each rank has seen."""
        model = model if model is not None else Recorder(self.delays_ms)
        trainer = self.trainer(**options)
        val = DataLoader(Numbered(16), batch_size=4)
        trainer.fit(model, loader if loader is not None else make_loader(SIZE), val)
        return outcome_of(trainer, model)


Recipe = Callable[[Bench], dict[str, Any]]


def taken_into(recipes: dict[str, Recipe]) -> Callable[[Recipe], Recipe]:
    """Return a decorator that keeps a recipe by its name."""

    def take(function: Recipe) -> Recipe:
        recipes[function.__name__] = function
        return function

    return take


def outcome_of(trainer: Trainer, model: Any) -> dict[str, Any]:
    return {
        "step": trainer.global_step,
        "epoch": trainer.current_epoch,
        "weights": digest_of(model),
        "metrics": {key: float(value) for key, value in trainer.callback_metrics.items()},
        "ids": getattr(model, "ids", {}),
    }


def digest_of(model: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for value in model.state_dict().values():
        digest.update(value.detach().to(torch.float64).numpy().tobytes())
    return digest.hexdigest()


class Plain(Recorder):
    """Without BatchNorm."""

    def __init__(self, delays_ms: Any) -> None:
        super().__init__(delays_ms)
        self.layers[1] = torch.nn.Identity()
