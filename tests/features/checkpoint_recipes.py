"""When checkpoints are saved."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from tests.features.bench import Bench, Recipe, taken_into
from tests.ranks import Recorder

RECIPES: dict[str, Recipe] = {}
recipe = taken_into(RECIPES)


def files_in(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.glob("*.ckpt"))


def with_checkpoints(bench: Bench, **options: Any) -> dict[str, Any]:
    more = {key: options.pop(key) for key in ("max_epochs", "val_check_interval") if key in options}
    saver = ModelCheckpoint(bench.folder, **options)
    outcome = bench.fit(callbacks=[saver], enable_checkpointing=True, **more)
    return {**outcome, "files": files_in(bench.folder), "best": saver.best_model_path}


@recipe
def checkpoint_every_n_train_steps(bench: Bench) -> dict[str, Any]:
    options = {"every_n_train_steps": 10, "save_top_k": -1, "filename": "{step}"}
    return with_checkpoints(bench, **options)


@recipe
def checkpoint_train_time_interval(bench: Bench) -> dict[str, Any]:
    interval = timedelta(milliseconds=5)
    return with_checkpoints(
        bench, train_time_interval=interval, save_top_k=-1, filename="{step}", max_epochs=2
    )


@recipe
def checkpoint_every_n_epochs(bench: Bench) -> dict[str, Any]:
    options = {"every_n_epochs": 2, "save_top_k": -1, "filename": "{epoch}"}
    return with_checkpoints(bench, max_epochs=4, **options)


@recipe
def checkpoint_monitor(bench: Bench) -> dict[str, Any]:
    options = {"monitor": "val_loss", "save_top_k": 2, "save_last": True, "filename": "{step}"}
    return with_checkpoints(bench, max_epochs=4, **options)


@recipe
def checkpoint_monitor_at_steps(bench: Bench) -> dict[str, Any]:
    options = {"monitor": "val_loss", "every_n_train_steps": 15, "filename": "{step}"}
    return with_checkpoints(bench, max_epochs=2, val_check_interval=0.5, **options)


class Breaks(Recorder):
    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        if self.global_rank == 1 and batch_idx == 3:
            raise ArithmeticError("on purpose")
        return super().training_step(batch, batch_idx)


@recipe
def checkpoint_save_on_exception(bench: Bench) -> dict[str, Any]:
    saver = ModelCheckpoint(bench.folder, save_on_exception=True)
    try:
        bench.fit(Breaks(bench.delays_ms), callbacks=[saver], enable_checkpointing=True)
    except Exception as err:
        return {"error": f"{type(err).__name__}: {err}", "files": files_in(bench.folder)}
    return {}
