"""One line per epoch, and the numbers behind it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lightning.pytorch import Callback
from typing_extensions import override

from lightning_elche import ElCheStrategy

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What one epoch amounted to, over all ranks.

    Attributes:
        val_loss: Validation loss after it.
        samples: Samples of all ranks.
        train_s: Seconds of training as seen by rank zero, validation excluded.
        share: Each rank's part of the samples.
    """

    val_loss: float
    samples: int
    train_s: float
    share: tuple[float, ...]


class EpochReport(Callback):
    """Measures every epoch by the same clock under any strategy, and prints a line on rank zero.

    Args:
        samples_per_epoch: Training samples that all ranks share.
        clock: Monotonic seconds.
    """

    def __init__(
        self, samples_per_epoch: int, *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.epochs: list[Epoch] = []
        self._samples = samples_per_epoch
        self._clock = clock
        self._train_s = 0.0
        self._resumed = 0.0

    @property
    def samples_per_s(self) -> float:
        """Samples of all ranks per second of training, over all epochs."""
        return sum(e.samples for e in self.epochs) / sum(e.train_s for e in self.epochs)

    @property
    def share(self) -> tuple[float, ...]:
        """Each rank's part of the samples of all epochs."""
        by_rank = zip(*(epoch.share for epoch in self.epochs), strict=True)
        return tuple(sum(parts) / len(self.epochs) for parts in by_rank)

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._train_s = 0.0
        self._resumed = self._clock()

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._train_s += self._clock() - self._resumed

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._resumed = self._clock()

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._train_s += self._clock() - self._resumed
        epoch = Epoch(
            val_loss=float(trainer.callback_metrics["val_loss"]),
            samples=self._samples,
            train_s=self._train_s,
            share=share_of(trainer),
        )
        self.epochs.append(epoch)
        if trainer.is_global_zero:
            bar = trainer.progress_bar_callback
            line = epoch_line(epoch, number=len(self.epochs), total=trainer.max_epochs)
            (print if bar is None else bar.print)(line)


def share_of(trainer: Trainer) -> tuple[float, ...]:
    """Return each rank's part of the last epoch's samples; equal parts under stock strategies."""
    strategy = trainer.strategy
    metrics = strategy.epoch_metrics if isinstance(strategy, ElCheStrategy) else None
    return metrics.share if metrics else (1.0 / trainer.world_size,) * trainer.world_size


def epoch_line(epoch: Epoch, *, number: int, total: int | None) -> str:
    """Return one line on `epoch`, the `number`-th of `total`."""
    speed = epoch.samples / epoch.train_s
    shares = " / ".join(f"{part:.0%}" for part in epoch.share)
    return (
        f"  epoch {number}/{total}   val loss {epoch.val_loss:.3f} "
        f"({bits(epoch.val_loss):.2f} bits/char)   {speed:,.0f} samples/s   "
        f"shares {shares}   {epoch.train_s:.0f} s"
    )


def bits(loss: float) -> float:
    """Return a cross-entropy in bits instead of nats."""
    return loss / math.log(2.0)
