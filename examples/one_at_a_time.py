"""Start this several times at once: one trains, the others wait for their turn, or say why not.

The registry that they share is a file; a run that is killed leaves its place to the next one.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from classify_digits import DigitClassifier, digit_loaders
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from quiet_lightning import quiet_lightning
from typing_extensions import override

from lightning_elche.coordination import CoordinatedTask, Database, LimitsConfig, Registry
from lightning_elche.coordination.registry.config import default_folder


def main() -> int:
    """Train when it may."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--folder", type=Path, default=default_folder(os.environ))
    parser.add_argument("--at-once", type=int, default=1, help="how many may train")
    parser.add_argument("--wait", type=float, metavar="SECONDS", help="for a turn, at most")
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args()
    limits = LimitsConfig(per_host={"train": options.at_once}, cluster={"train": None})
    registry = Registry(Database(options.folder / "registry.db"), limits=limits)
    asked_s = time.monotonic()
    with CoordinatedTask(
        "train", registry=registry, wait=options.wait is not None, timeout_s=options.wait
    ) as task:
        if not task.allowed:
            print(f"not started: {task.decision.code}: {task.decision.reason}")
            return 1
        print(f"started after {time.monotonic() - asked_s:.1f} s", flush=True)
        accuracy = train(options.epochs, task)
    print(f"done, accuracy {accuracy:.1%}")
    return 0


def train(epochs: int, task: CoordinatedTask) -> float:
    """Train a small network on digits, and return its accuracy on unseen ones."""
    quiet_lightning()
    seed_everything(0, verbose=False)
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        callbacks=[TellProgress(task)],
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(DigitClassifier(), *digit_loaders())
    return float(trainer.callback_metrics["accuracy"])


class TellProgress(Callback):
    """Tells once an epoch is done: from then on, an error is none of the start."""

    def __init__(self, task: CoordinatedTask) -> None:
        self.task = task

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.task.mark_progress()


if __name__ == "__main__":
    raise SystemExit(main())
