"""Many short runs with random delays: nothing hangs, nothing is lost, replicas stay equal."""

from __future__ import annotations

import os
import random
import time
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from lightning_elche.ops.digest import digest_number
from lightning_elche.testing import run_ranks
from tests.ranks import Recorder, fit, weights

pytestmark = pytest.mark.slow


class Jittery(Recorder):
    """Takes a random time for every step; every so often a rank changes its speed."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        phase = (self.seed, self.global_rank, batch_idx // 20)
        mean_ms = random.Random(repr(phase)).choice([0.2, 1.0, 4.0])
        jitter = random.Random(repr((*phase, batch_idx))).uniform(0.5, 1.5)
        self.delays_ms = (mean_ms * jitter,)
        return super().training_step(batch, batch_idx)


def run_once(seed: int, num_ranks: int) -> tuple[dict[int, list[int]], dict[str, torch.Tensor]]:
    choose = random.Random(seed)
    _, model = fit(
        num_ranks,
        size=choose.randrange(100, 400, 4),
        model=Jittery(seed),
        max_epochs=2,
        val_size=choose.choice([0, 16]),
        accumulate_grad_batches=choose.choice([1, 3]),
    )
    return model.ids, weights(model)


@pytest.mark.parametrize("seed", range(6))
def test_random_speeds_lose_nothing(seed: int) -> None:
    """With speeds that jump, each epoch is exact and all ranks end with the same bits."""
    world_size = 2 + seed % 3
    results = run_ranks(run_once, world_size=world_size, seed=seed, num_ranks=world_size)
    ranks = [result.value for result in results]
    for epoch in (0, 1):
        seen = sorted(index for ids, _ in ranks for index in ids[epoch])
        assert seen == list(range(len(seen)))
    first = ranks[0][1]
    assert all(torch.equal(first[name], other[name]) for _, other in ranks for name in first)


class Drifting(Recorder):
    """Changes its speed every three seconds, by a factor of up to 20."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        phase = (self.global_rank, int(time.time() / 3.0))
        self.delays_ms = (random.Random(repr(phase)).choice([0.5, 1.0, 3.0, 10.0]),)
        return super().training_step(batch, batch_idx)


class Checks(Callback):
    """Checks every epoch where ranks are aligned, and asks to stop when the time is over."""

    def __init__(self, minutes: float) -> None:
        self.ends_at = time.monotonic() + 60.0 * minutes
        self.num_epochs = 0

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        ids = pl_module.ids.pop(trainer.current_epoch)
        seen: list[Any] = [None] * trainer.world_size
        plan = digest_number(repr(trainer.strategy.run.rounds.state_dict()["controller"]))
        torch.distributed.all_gather_object(seen, (ids, plan))
        assert sorted(i for others, _ in seen for i in others) == list(range(SOAK_SAMPLES))
        assert len({other for _, other in seen}) == 1
        self.num_epochs += 1
        trainer.should_stop = time.monotonic() > self.ends_at


SOAK_SAMPLES = 4000
SOAK_MINUTES = float(os.environ.get("ELCHE_SOAK_MINUTES", "20"))


def soak() -> tuple[int, dict[str, torch.Tensor]]:
    checks = Checks(SOAK_MINUTES)
    _, model = fit(3, size=SOAK_SAMPLES, model=Drifting(), max_epochs=-1, callbacks=[checks])
    return checks.num_epochs, weights(model)


@pytest.mark.soak
@pytest.mark.timeout(60.0 * SOAK_MINUTES + 120.0)
def test_long_run_with_changing_speeds_stays_exact() -> None:
    """Every epoch is exact, all ranks plan the same, and all end with the same bits."""
    results = run_ranks(soak, world_size=3, timeout_s=60.0 * SOAK_MINUTES + 90.0)
    epochs = {result.value[0] for result in results}
    print(f"{epochs.pop()} epochs")
    assert not epochs
    first = results[0].value[1]
    assert all(torch.equal(first[n], result.value[1][n]) for result in results for n in first)
