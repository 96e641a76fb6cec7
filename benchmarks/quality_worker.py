"""One rank of one training of the quality benchmark; `quality.py` starts it.

Rank 0 writes the curve of the validation loss and what happened at each averaging event. The clock
stands still during validation, which measures the training and is not a part of it.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from char_gpt import CharGPT
from lightning.pytorch import Callback, Trainer, seed_everything
from processes import leave
from quiet_lightning import quiet_lightning
from slow_rank import SlowDown
from stdlib_text import StdlibText
from typing_extensions import override

from lightning_elche import CadenceConfig, ElCheStrategy, GuardConfig, OuterOptimizer

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule
    from lightning.pytorch.strategies import Strategy

    from lightning_elche.control.events import AveragingEvent

CONTEXT = 64  # characters in a window


def main() -> None:
    """Train as told by the command line."""
    options = parse_arguments()
    quiet_lightning()
    torch.set_num_threads(1)
    seed_everything(options.seed, verbose=False)
    if options.cgroup_procs:
        # Not earlier, since importing torch under a small quota takes long.
        options.cgroup_procs.write_text(str(os.getpid()))
    recorder = Recorder(options.batch_size)
    fit(options, recorder)
    if options.result:
        result = {"points": recorder.points, "events": recorder.events}
        options.result.write_text(json.dumps(result))
    if options.mode == "ddp":
        leave()


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--mode", choices=("alone", "ddp", "elche"), required=True)
    add("--optimizer-state", choices=("average", "keep"), default="average")
    add("--guard", choices=("on", "off"), default="on")
    add("--anchor", type=int, default=10)
    add("--outer", default="none")
    add("--seed", type=int, required=True)
    add("--epochs", type=int, required=True)
    add("--batches", type=int, required=True, help="of an epoch, over all ranks")
    add("--batch-size", type=int, required=True, help="of each rank")
    add("--checks", type=int, required=True, help="validations in an epoch")
    add("--learning-rate", type=float, required=True)
    add("--factor", type=float, default=1.0, help="sleep to be so much slower")
    add("--cgroup-procs", type=Path, help="the group that limits this process")
    add("--result", type=Path, help="where to write the result")
    return parser.parse_args()


def fit(options: argparse.Namespace, recorder: Recorder) -> None:
    """Train the model of `examples/pretrain_stdlib.py`."""
    own_rank = int(os.environ.get("LOCAL_RANK", "0"))
    trainer = Trainer(
        accelerator="cpu",
        devices=int(os.environ.get("WORLD_SIZE", "1")),
        strategy=strategy_of(options),
        max_epochs=options.epochs,
        gradient_clip_val=1.0,
        val_check_interval=1.0 / options.checks,
        num_sanity_val_steps=0,
        callbacks=[SlowDown(rank=own_rank, factor=options.factor), recorder],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    chars = options.batches * options.batch_size * CONTEXT
    data = StdlibText(CONTEXT, options.batch_size, chars, val_chars=65_536, seed=options.seed)
    trainer.fit(CharGPT(context=CONTEXT, learning_rate=options.learning_rate), data)


def strategy_of(options: argparse.Namespace) -> Strategy | str:
    """Return what trains."""
    if options.mode == "elche":
        return ElCheStrategy(
            cadence=CadenceConfig(anchor=options.anchor),
            outer_optimizer=outer_optimizer_of(options.outer),
            optimizer_state=options.optimizer_state,
            guard=GuardConfig(enabled=options.guard == "on"),
        )
    return "ddp" if options.mode == "ddp" else "auto"


def outer_optimizer_of(text: str) -> OuterOptimizer | None:
    """Return the outer optimizer for "none" or "LR,MOMENTUM"."""
    if text == "none":
        return None
    lr, momentum = (float(part) for part in text.split(","))
    return OuterOptimizer(lr=lr, momentum=momentum)


class Recorder(Callback):
    """Notes the validation loss and the averaging events by samples and by seconds of training.

    Args:
        batch_size: Samples in a batch of one rank.
    """

    def __init__(self, batch_size: int) -> None:
        self.points: list[dict[str, float]] = []
        self.events: list[dict[str, float | str]] = []
        self._batch_size = batch_size
        self._train_s = 0.0
        self._resumed = 0.0

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._resumed = time.perf_counter()

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._train_s = self._now()

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # ElCheStrategy counts the steps of all ranks, DDP those of each.
        ranks = 1 if isinstance(trainer.strategy, ElCheStrategy) else trainer.world_size
        point = {
            "samples": float(trainer.global_step * ranks * self._batch_size),
            "seconds": self._train_s,
            "loss": float(trainer.callback_metrics["val_loss"]),
        }
        self.points.append(point)
        self._resumed = time.perf_counter()

    def on_average_end(self, event: AveragingEvent) -> None:
        """Note what the event decided; called by ElCheStrategy."""
        self.events.append(
            {
                "samples": float(event.global_step * self._batch_size),
                "seconds": self._now(),
                "anchor": float(event.plan.anchor),
                "action": event.action.name,
            }
            | ({} if event.index == 0 else {"previous_divergence": event.divergence})
        )

    def _now(self) -> float:
        return self._train_s + time.perf_counter() - self._resumed


if __name__ == "__main__":
    main()
