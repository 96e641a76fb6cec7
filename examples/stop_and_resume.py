"""Stop a run at any moment, and go on with exactly the batches that are left.

Press Ctrl-C, or let `--stop-at` send the signal of a scheduler to one rank; then start it again.
"""

from __future__ import annotations

import argparse
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from classify_digits import DigitClassifier, digit_loaders
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from quiet_lightning import quiet_lightning
from slow_rank import SlowDown

from lightning_elche import ElCheStrategy

if TYPE_CHECKING:
    from lightning_elche.control.events import AveragingEvent

RANK = int(os.environ.get("LOCAL_RANK", "0"))


def main() -> None:
    """Train, from the last checkpoint if there is one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/stop_and_resume"))
    parser.add_argument("--stop-at", type=int, metavar="STEP", help="send SIGTERM to rank 1 then")
    options = parser.parse_args()
    quiet_lightning()
    seed_everything(0, verbose=False)  # the samplers must yield the same batches again
    strategy = ElCheStrategy()
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy=strategy,
        callbacks=[
            ModelCheckpoint(options.out, save_last=True),  # a run that is stopped saves here, too
            SlowDown(rank=1, factor=4.0),
            StopAt(options.stop_at),
        ],
        max_epochs=20,
        logger=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    train, val = digit_loaders()
    has_last = any(options.out.glob("last*.ckpt"))
    trainer.fit(DigitClassifier(), train, val, ckpt_path="last" if has_last else None)
    if trainer.is_global_zero:
        print(f"done at step {trainer.global_step}, epoch {trainer.current_epoch}")


class TellsOfStop(Callback):
    """Prints where a run was stopped."""

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Say what has happened, and what to do next."""
        del pl_module
        if trainer.is_global_zero:
            why = type(exception).__name__
            print(f"stopped at step {trainer.global_step} ({why}); start it again, and it goes on")


class StopAt(TellsOfStop):
    """Sends SIGTERM to rank 1, once all ranks together have made so many steps."""

    def __init__(self, step: int | None) -> None:
        self.step = step

    def on_average_end(self, event: AveragingEvent) -> None:
        """Called after each averaging event; here all ranks agree on the number of steps."""
        if RANK == 1 and self.step is not None and event.global_step >= self.step:
            os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
