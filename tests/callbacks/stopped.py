"""A run that stops: what its tests have in common."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, seed_everything

from lightning_elche import ElCheStrategy
from lightning_elche.callbacks.run_stopper import RunStopper
from lightning_elche.coordination.schedule.measured import Measured
from lightning_elche.coordination.stopping.stop import StopConfig
from tests.ranks import Recorder, fit

HOOKS = (
    "setup",
    "on_fit_start",
    "on_sanity_check_start",
    "on_train_start",
    "on_train_batch_end",
    "on_validation_start",
    "on_validation_batch_end",
    "on_exception",
    "on_save_checkpoint",
    "teardown",
)


class Stops(Callback):
    """Hands the hooks of Lightning on to a RunStopper."""

    def __init__(self, folder: Path, config: StopConfig, **options: Any) -> None:
        times = Measured()
        times.add(0.05)  # so that there is time to meet in a short grace
        self.stopper = RunStopper(config, folder=lambda: folder, checkpoint_times=times, **options)
        for hook in HOOKS:
            setattr(self, hook, getattr(self.stopper, hook))


class Acts(Callback):
    """Calls a function with the Trainer at the end of a batch of one rank, once."""

    def __init__(self, rank: int, batch: int, act: Callable[[Any], object]) -> None:
        self.rank, self.batch, self.act = rank, batch, act
        self.at: float | None = None

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        at = trainer.fit_loop.epoch_loop.batch_progress.total.ready
        if trainer.global_rank == self.rank and at > self.batch and self.at is None:
            self.at = time.monotonic()
            self.act(trainer)


def digest(module: torch.nn.Module) -> str:
    found = hashlib.sha256()
    for value in module.parameters():
        found.update(value.detach().numpy().tobytes())
    return found.hexdigest()


def train(
    world_size: int,
    folder: str | Path,
    *callbacks: Callback,
    config: StopConfig | None = None,
    model: Recorder | None = None,
    last: Sequence[Callback] = (),
    **options: Any,
) -> dict[str, Any]:
    """Fit, and tell how that has ended: exit code, seconds since `Acts`, parameters."""
    stops = Stops(Path(folder), config or StopConfig(grace_s=20.0))
    seed_everything(7, verbose=False)
    model = model or Recorder((2.0, 8.0))
    options.setdefault("strategy", ElCheStrategy(policy="async", timeout_s=30.0))
    options.setdefault("size", 4000)
    code: Any = 0
    try:
        fit(world_size, model=model, callbacks=[*callbacks, stops, *last], **options)
    except SystemExit as err:
        code = err.code
    acted = [one.at for one in callbacks if isinstance(one, Acts) and one.at is not None]
    seconds = time.monotonic() - acted[0] if acted else 0.0
    return {"code": code, "seconds": seconds, "digest": digest(model), "ids": model.ids}
