"""A callback that replays, as small as can be, and models that can go wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything

from lightning_elche import AveragingEvent
from lightning_elche.callbacks.partition_replay import PartitionReplay
from lightning_elche.partition.replay import ReplayConfig
from tests.ranks import Recorder, fit


class Replays(Callback):
    """Calls a `PartitionReplay` where it wants to be called."""

    def __init__(
        self, root: Path, mode: str = "record", restored_step: int | None = None, **options: Any
    ) -> None:
        self.replay = PartitionReplay()
        self.root, self.restored_step = root, restored_step
        self.config = ReplayConfig(mode=mode, **options)
        self.lines: list[bytes] = []
        self.last_step = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.trainer = trainer
        self.replay.begin(trainer, self.root, self.config, self.restored_step)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.replay.start()

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        is_running = getattr(trainer.strategy, "is_running", False)
        if not is_running and trainer.global_step != self.last_step:
            self.last_step = trainer.global_step
            self.replay.point(step=self.last_step, sync_index=0)

    def on_average_end(self, event: AveragingEvent) -> None:
        if event.is_aligned and event.crossed_nodes:
            self.replay.point(step=event.global_step, sync_index=event.index)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.replay.finish()

    def on_exception(self, *_: Any) -> None:
        self.replay.close()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.replay.close()


class Adaptive(Recorder):
    """Has optimizer states and dropout, and flips a bit of a buffer at a step if it is told to."""

    def __init__(
        self, delays_ms: Any = (0.0,), *, flips_at: int = -1, rank: int = 0, lr: float = 0.01
    ) -> None:
        super().__init__(delays_ms)
        self.layers.append(torch.nn.Dropout(0.3))
        self.register_buffer("unused", torch.ones(20_000))
        self.flips_at, self.flipping_rank, self.lr = flips_at, rank, lr

    def optimizer_step(self, epoch: int, batch_idx: int, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(epoch, batch_idx, *args, **kwargs)
        if (batch_idx, self.global_rank) == (self.flips_at, self.flipping_rank):
            self.unused.view(torch.int32)[18_000] ^= 1

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.lr)


def replay(
    callback: Replays, *, lr: float = 0.01, flips_at: int = -1, **options: Any
) -> PartitionReplay:
    """Fit on one device, six steps unless told otherwise."""
    options = {"size": 24, "val_size": 4, "strategy": "auto", **options}
    seed_everything(3, verbose=False)
    fit(1, model=Adaptive(lr=lr, flips_at=flips_at), callbacks=[callback], **options)
    return callback.replay
