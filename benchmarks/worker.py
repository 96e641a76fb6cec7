"""One rank of one row of the benchmark, in a process of its own; `hetero.py` starts it.

The first epoch is the warm-up. What counts are the seconds from its end to the end of the last.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from peers import PEERS
from plain_loop import PlainLoop
from processes import leave
from quiet_lightning import quiet_lightning
from report import DDP, OURS
from slow_rank import SlowDown
from typing_extensions import override
from workload import BATCH_SIZE, WORKLOADS, ImageClassifier, bytes_of, loader, optimizer_for

from lightning_elche import ElCheStrategy

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule
    from lightning.pytorch.strategies import Strategy

TRAINER = ("solo", DDP, *OURS)


def main() -> None:
    """Train as told by the command line."""
    options = parse_arguments()
    quiet_lightning()
    torch.set_num_threads(1)
    seed_everything(0, verbose=False)
    train = run_trainer if options.mode in TRAINER else partial(run_plain, loop_of(options.mode))
    if options.cgroup_procs:
        # Not earlier, since importing torch and others under a small quota takes long.
        options.cgroup_procs.write_text(str(os.getpid()))
    clock = EpochClock(options.result.with_suffix(".begun"))
    details = train(options, clock)
    ends = clock.ends
    batches = (options.epochs - 1) * options.batches
    seconds = ends[-1] - ends[0]
    result = {
        "samples": batches * BATCH_SIZE,
        "batches": batches,
        "seconds": seconds,
        "samples_per_s": batches * BATCH_SIZE / seconds,
        "model_bytes": bytes_of(WORKLOADS[options.workload]()),
        "begun": ends[0],
        "ended": ends[-1],
        "details": details,
    }
    options.result.write_text(json.dumps(result))
    if options.mode == DDP or options.mode in PEERS:
        leave()


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mode", choices=(*TRAINER, "raw", *PEERS), required=True)
    parser.add_argument("--workload", choices=WORKLOADS, required=True)
    parser.add_argument("--batches", type=int, required=True, help="of an epoch; see `Plan`")
    parser.add_argument("--local-steps", type=int, help="between two averagings")
    parser.add_argument("--epochs", type=int, required=True, help="the warm-up included")
    parser.add_argument("--factor", type=float, default=1.0, help="sleep to be so much slower")
    parser.add_argument("--cgroup-procs", type=Path, help="the group that limits this process")
    parser.add_argument("--result", type=Path, required=True, help="where to write the result")
    return parser.parse_args()


LoopMaker = Callable[[argparse.Namespace], AbstractContextManager[PlainLoop]]


def loop_of(mode: str) -> LoopMaker:
    """Return what makes the loop of a mode; a peer's package is imported only by its own rows."""
    if mode == "raw":
        return raw_loop
    module, _, function = PEERS[mode].loop.partition(":")
    make: LoopMaker = getattr(import_module(module), function)
    return make


def raw_loop(options: argparse.Namespace) -> AbstractContextManager[PlainLoop]:
    """Return the loop of one rank alone."""
    module = WORKLOADS[options.workload]()
    batches = loader(options.batches)
    return nullcontext(PlainLoop(module=module, optimizer=optimizer_for(module), batches=batches))


def run_plain(
    make_loop: LoopMaker, options: argparse.Namespace, clock: EpochClock
) -> dict[str, object]:
    """Train in a plain PyTorch loop."""
    slow_down = SlowDown(factor=options.factor)
    with make_loop(options) as loop:
        loop.run(epochs=options.epochs, slow_down=slow_down, after_epoch=clock.note)
    return {}


def run_trainer(options: argparse.Namespace, clock: EpochClock) -> dict[str, object]:
    """Train with Lightning and return details of the strategy."""
    own_rank = int(os.environ.get("LOCAL_RANK", "0"))
    trainer = Trainer(
        accelerator="cpu",
        devices=int(os.environ.get("WORLD_SIZE", "1")),
        strategy=strategy_of(options.mode),
        max_epochs=options.epochs,
        callbacks=[SlowDown(rank=own_rank, factor=options.factor), clock],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(ImageClassifier(options.workload), loader(options.batches))
    return details_of(trainer)


def strategy_of(mode: str) -> Strategy | str:
    """Return what trains."""
    if mode in OURS:
        options: dict[str, Any] = dict(OURS[mode])
        return ElCheStrategy(**options)
    return "auto" if mode == "solo" else mode


class EpochClock(Callback):
    """Notes when each training epoch ended.

    Args:
        begun: The file that shows to others that the warm-up is over.
    """

    def __init__(self, begun: Path) -> None:
        self.begun = begun
        self.ends: list[float] = []

    def note(self) -> None:
        """Note that an epoch has ended."""
        self.ends.append(time.monotonic())
        self.begun.touch()

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.note()


def details_of(trainer: Trainer) -> dict[str, object]:
    """Return how the last epoch went, where the strategy says."""
    strategy = trainer.strategy
    metrics = strategy.epoch_metrics if isinstance(strategy, ElCheStrategy) else None
    if metrics is None:
        return {}
    return {
        "share": metrics.share,
        "compute_ms": metrics.compute_ms,
        "wait_ms": metrics.wait_ms,
        "transfer_ms": metrics.transfer_ms,
        "epoch_ms": metrics.epoch_ms,
        "events": metrics.events,
    }


if __name__ == "__main__":
    main()
