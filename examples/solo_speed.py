"""How fast each rank is alone: what a joint run has to be judged against."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from quiet_lightning import quiet_lightning
from slow_rank import SlowDown
from typing_extensions import override

if TYPE_CHECKING:
    from torch import Tensor

WARM_UP = 0.15  # of the seconds; the first steps allocate and settle


class SoloMeter(Callback):
    """Measures samples per second for some time after a warm-up, then ends the training.

    Args:
        seconds: How long to train.
        clock: Monotonic seconds.
    """

    def __init__(self, seconds: float, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds = seconds
        self.samples = 0
        self._clock = clock
        self._begun = self._ended = 0.0
        self._is_warm = False

    @property
    def samples_per_s(self) -> float:
        """Samples per second since the warm-up."""
        return self.samples / (self._ended - self._begun)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begun = self._clock()

    @override
    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: tuple[Tensor, ...],
        batch_idx: int,
    ) -> None:
        now = self._clock()
        if self._is_warm:
            self.samples += len(batch[0])
            self._ended = now
            trainer.should_stop = now - self._begun >= (1.0 - WARM_UP) * self.seconds
        elif now - self._begun >= WARM_UP * self.seconds:
            self._is_warm = True
            self._begun = now


def solo_samples_per_s(
    module: LightningModule, data: LightningDataModule, *, factor: float, seconds: float
) -> float:
    """Return the speed of one rank alone, slowed `factor` times, under a plain Trainer."""
    quiet_lightning()
    torch.set_num_threads(1)
    meter = SoloMeter(seconds)
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=10_000,  # the meter ends it
        limit_val_batches=0,
        callbacks=[SlowDown(rank=0, factor=factor), meter],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(module, data)
    return meter.samples_per_s
