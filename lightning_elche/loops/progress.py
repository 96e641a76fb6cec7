"""Progress bars that count the work of all ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

    from lightning_elche.distributed.rounds import Rounds

__all__ = ["show_epoch_end", "show_total_progress"]


def show_total_progress(trainer: Trainer, rounds: Rounds) -> None:
    """Let the Trainer's progress bar show the batches of all ranks, not only of this one.

    Between two averaging events only this rank's own batches are added to what was agreed.
    """
    bar: Any = trainer.progress_bar_callback
    if bar is None:
        return
    stock_update = type(bar).on_train_batch_end

    def on_train_batch_end(
        trainer: Trainer, module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        del batch_idx  # counts this rank's batches
        window = rounds.window
        done = rounds.epoch_batches + window.batches - window.ahead_batches
        stock_update(bar, trainer, module, outputs, batch, done)

    bar.on_train_batch_end = on_train_batch_end


def show_epoch_end(trainer: Trainer, batches: int) -> None:
    """Let the progress bar reach the `batches` of the epoch, whoever trained the last of them."""
    bar: Any = trainer.progress_bar_callback
    if bar is not None:
        type(bar).on_train_batch_end(
            bar, trainer, trainer.lightning_module, None, None, batches - 1
        )
