"""Halt a run, save it on request, and go on: what a scheduler, or `elche coord`, does to it.

`--checkpoint-at` and `--halt-at` give the commands from within. Or, from another terminal while
it runs: `elche coord pause runs/stop_cleanly`, likewise `resume`, `checkpoint` and `halt`, or a
SIGTERM to any of its processes. Start it again, and it goes on.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from classify_digits import DigitClassifier, digit_loaders
from lightning.pytorch import LightningModule, Trainer, seed_everything
from quiet_lightning import quiet_lightning
from stop_and_resume import TellsOfStop

from lightning_elche import Coordination, ElCheStrategy
from lightning_elche.callbacks.run_folder import run_folder
from lightning_elche.coordination.stopping.commands import write_command

if TYPE_CHECKING:
    from torch import Tensor


class Commands(TellsOfStop):
    """Gives commands to the run, as somebody else would, by writing their files.

    Args:
        commands: The name of each, and after which batch of rank 0 it is given.
    """

    def __init__(self, commands: dict[str, int | None]) -> None:
        self._commands = commands
        self._batches = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the folder of the run, which all ranks do together."""
        del pl_module, stage
        self._folder = run_folder(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Tensor, batch: object, _: int
    ) -> None:
        """Give what is due."""
        del pl_module, outputs, batch
        self._batches += 1
        for name, at in self._commands.items():
            if at == self._batches and trainer.is_global_zero:
                write_command(self._folder, name, at=time.time(), by="the example", reason="a test")


def main() -> None:
    """Train, from where the last run was stopped if there was one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/stop_cleanly"))
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=400)
    parser.add_argument("--checkpoint-at", type=int, metavar="BATCH")
    parser.add_argument("--halt-at", type=int, metavar="BATCH")
    options = parser.parse_args()
    quiet_lightning()
    seed_everything(0, verbose=False)
    commands = Commands({"CHECKPOINT": options.checkpoint_at, "HALT": options.halt_at})
    trainer = Trainer(
        accelerator="cpu",
        devices=options.devices,
        strategy=ElCheStrategy(),
        callbacks=[commands, Coordination()],
        max_epochs=options.epochs,
        default_root_dir=options.out,
        enable_checkpointing=False,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    stopped = Coordination.resume_path(options.out)
    if stopped is not None and trainer.is_global_zero:
        print(f"going on from {Path(stopped).name}")
    trainer.fit(DigitClassifier(), *digit_loaders(), ckpt_path=stopped)
    if trainer.is_global_zero:
        print(f"done at step {trainer.global_step}, epoch {trainer.current_epoch}")


if __name__ == "__main__":
    main()
