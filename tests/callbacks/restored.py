"""Ranks that save together, and other numbers of ranks that go on from what they have saved."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch.utils.data import DataLoader

from lightning_elche import CadenceConfig, ElCheStrategy
from lightning_elche.ops.replay_tensors import replay_tensors
from lightning_elche.ops.rml_torch import named_lanes
from lightning_elche.partition.fs import this_host
from lightning_elche.partition.read_checkpoint import read_manifest
from lightning_elche.partition.replay_lanes import fingerprint_of
from lightning_elche.partition.store_config import StoreConfig
from tests.callbacks.partitioned import Drawing, saver_of
from tests.ranks import Numbered, make_trainer

__all__ = ["moments_of", "restore", "save_and_keep", "train"]

SIZE = 240  # samples; 60 batches


class Looks(Callback):
    """Remembers what the state was at the first step of this fit, and at its averaging events."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.trainer = trainer
        self.of_steps: dict[int, dict[str, list[float]]] = {}

    def on_average_end(self, event: Any) -> None:
        self.of_steps[event.global_step] = moments_of(self.trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.moments = moments_of(trainer)
        state = replay_tensors(pl_module.state_dict(), trainer.optimizers, module=pl_module)
        found = fingerprint_of(named_lanes(state), step=trainer.global_step)
        self.value, self.step = found.value, trainer.global_step


def moments_of(trainer: Trainer) -> dict[str, list[float]]:
    """The state of the optimizer, as far as it is that of the first weight."""
    state = trainer.optimizers[0].state_dict()["state"].get(0, {})
    return {name: value.flatten().tolist() for name, value in state.items()}


def train(
    root: str,
    *,
    resume: str | None = None,
    steps: int = 20,
    **strategy: Any,
) -> tuple[Trainer, Looks]:
    """Train on as many ranks as the environment says, and save once in the midst of it."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    seed_everything(7, verbose=False)
    looks = Looks()
    saver = saver_of(root, every=12, store=StoreConfig(durability="flush"))
    trainer = make_trainer(
        world_size,
        strategy=ElCheStrategy(
            cadence=CadenceConfig(anchor=2, max_anchor=2), timeout_s=30.0, **strategy
        ),
        callbacks=[looks, saver],
        enable_checkpointing=True,
        max_steps=steps,
    )
    data = DataLoader(Numbered(SIZE), batch_size=4, shuffle=True)
    trainer.fit(Drawing(), data, ckpt_path=resume)
    os.environ["WORLD_SIZE"] = str(world_size)  # Lightning removes it at the end of a fit
    return trainer, looks


def save_and_keep(root: str) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Save two runs, and return what the second has kept, before and after it was resumed."""
    train(f"{root}/averaged")
    _, before = train(f"{root}/kept", optimizer_state="keep")
    _, after = train(f"{root}/more", resume=f"{root}/kept", steps=100, optimizer_state="keep")
    return before.of_steps[after.step], after.moments


def restore(root: str) -> tuple[int, int, list[int]]:
    """Return the fingerprint that was saved, the one that is there after a restore, and samples."""
    (path,) = Path(root).glob("step-*")
    saved = read_manifest(this_host().fs, path)
    trainer, looks = train(f"{root}-more", resume=str(path), steps=100)
    seen = [index for batch in trainer.lightning_module.ids for index in batch]
    assert looks.step == saved.step
    return saved.value, looks.value, seen
