"""A model whose losses follow a script, trained under a contract."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer, seed_everything
from torch.utils.data import DataLoader

from lightning_elche import GateTrain
from lightning_elche.exceptions import GateViolation
from tests.ranks import Numbered, Recorder, make_loader, make_trainer

__all__ = [
    "Scripted",
    "fit_gated",
    "lines_of",
    "lines_of_metadata",
    "run_of",
    "violation_of_fit",
]


class Scripted(Recorder):
    """Has the validation losses of a script; one loss of one rank may not be finite."""

    def __init__(
        self,
        val_losses: Sequence[float] = (3.0, 2.875, 2.75, 2.625, 2.5, 2.375),
        *,
        nan_at: int | None = None,
        nan_rank: int = 0,
        delays_ms: Sequence[float] = (0.0,),
        lr: float = 1e-5,
    ) -> None:
        super().__init__(delays_ms)
        self.val_losses = val_losses
        self.nan_at, self.nan_rank, self.lr = nan_at, nan_rank, lr

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = super().training_step(batch, batch_idx)
        is_bad = batch_idx == self.nan_at and self.global_rank == self.nan_rank
        return loss * math.nan if is_bad else loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.val_losses[self.current_epoch], sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=self.lr)


def fit_gated(
    run_dir: str | Path,
    *,
    model: Recorder | None = None,
    size: int = 40,
    devices: int = 1,
    gate: dict[str, Any] | None = None,
    ckpt_path: str | None = None,
    **options: Any,
) -> tuple[Trainer, Recorder]:
    """Fit under the default contract."""
    seed_everything(7, verbose=False)
    model = model if model is not None else Scripted()
    callbacks = [GateTrain(run_dir=run_dir, **(gate or {})), *options.pop("callbacks", [])]
    if devices == 1:
        options = {"strategy": "auto", **options}
    trainer = make_trainer(devices, callbacks=callbacks, **options)
    val = DataLoader(Numbered(8), batch_size=4)
    trainer.fit(model, make_loader(size), val, ckpt_path=ckpt_path)
    return trainer, model


def violation_of_fit(*args: Any, **options: Any) -> GateViolation:
    """Return the violation that ends the fit."""
    try:
        fit_gated(*args, **options)
    except GateViolation as err:
        return err
    raise AssertionError("the contract was kept")


def run_of(folder: Path) -> dict[str, Any]:
    """Return the run's record."""
    record: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return record


def lines_of(file: Path) -> list[dict[str, Any]]:
    """Return the records of a log."""
    return [json.loads(line) for line in file.read_text().splitlines()]


def lines_of_metadata(folder: Path) -> list[dict[str, Any]]:
    """Return what is known of each epoch that was saved."""
    return [json.loads(file.read_text()) for file in sorted(folder.glob("ckpt/*.metadata.json"))]
