"""Signals and errors at random moments of a run: nothing hangs, and no work is lost.

`pytest -m soak tests/strategies/test_kill.py` makes 100 runs, or `ELCHE_KILL_RUNS`.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_elche import ElCheStrategy
from lightning_elche.testing import run_ranks
from tests.ranks import fit

pytestmark = [pytest.mark.slow, pytest.mark.soak]

RUNS = int(os.environ.get("ELCHE_KILL_RUNS", "100"))
WITHIN_S = 30.0
OPTIONS: list[dict[str, Any]] = [
    {},
    {"policy": "async"},
    {"backend": "cpu"},
    {"policy": "async", "backend": "cpu"},
    {"policy": "sync", "backend": "cpu"},
]


class Killed(Callback):
    """Sends a signal to its own process at some moment of the training."""

    def __init__(self, signum: int, delay_s: float) -> None:
        self.timer = threading.Timer(delay_s, os.kill, (os.getpid(), signum))
        self.timer.daemon = True

    def on_train_epoch_start(self, trainer: Any, *_: Any) -> None:
        if trainer.current_epoch == 0:
            self.timer.start()

    def on_train_end(self, *_: Any) -> None:
        self.timer.cancel()


class Raises(Callback):
    """Raises an error after some batch."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        self.batch -= 1
        if self.batch == 0:
            raise ArithmeticError("on purpose")


def be_killed(folder: str, seed: int) -> int:
    rng = random.Random(seed)
    world_size, rank = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
    options = rng.choice(OPTIONS)
    delays_ms = [rng.uniform(0.5, 8.0) for _ in range(world_size)]
    signum = rng.choice([signal.SIGTERM, signal.SIGINT, None])
    delay_s = rng.uniform(0.0, 1.5)
    victims = rng.sample(range(world_size), rng.randint(1, world_size))
    callbacks: list[Callback] = [ModelCheckpoint(folder, every_n_train_steps=30)]
    if signum is None and rank == victims[0]:
        callbacks.append(Raises(rng.randint(1, 80)))
    elif signum is not None and rank in victims:
        callbacks.append(Killed(signum, delay_s))
    trainer, _ = fit(
        world_size,
        size=1600,
        max_epochs=2,
        delays_ms=delays_ms,
        val_size=16,
        val_check_interval=0.3,
        enable_checkpointing=True,
        callbacks=callbacks,
        strategy=ElCheStrategy(timeout_s=20.0, **options),
    )
    return trainer.global_step


@pytest.mark.timeout(60 + RUNS * WITHIN_S)
def test_ends_at_random_moments_lose_nothing(tmp_path: Path) -> None:
    """All ranks end alike within 30 s, and a checkpoint holds all that was trained."""
    ends: Counter[int] = Counter()
    for seed in range(RUNS):
        folder = tmp_path / str(seed)
        world_size = 2 + seed % 2
        ranks = run_ranks(
            be_killed,
            world_size=world_size,
            timeout_s=WITHIN_S,
            check=False,
            folder=str(folder),
            seed=seed,
        )
        codes = {rank.returncode for rank in ranks}
        outputs = "\n".join(rank.output for rank in ranks)
        assert len(codes) == 1, (seed, codes, outputs)
        (code,) = codes
        assert code in (0, 1, 130, 143), (seed, code, outputs)
        assert code != 1 or "ArithmeticError: on purpose" in outputs, (seed, outputs)
        ends[code] += 1
        if code:
            check(folder / "last-stopped.ckpt")
    print(f"{RUNS} runs, by exit code: {dict(ends)}")


def check(file: Path) -> None:
    saved = torch.load(file, weights_only=True)
    data = saved["loops"]["fit_loop"]["epoch_loop.state_dict"]["elche"]["data"]
    trained = sum(stop - start for start, stop in [*data["trained"], *data["ahead"]])
    assert saved["global_step"] == data["epoch"] * 400 + trained
