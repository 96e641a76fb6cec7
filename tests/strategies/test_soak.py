"""Many short runs with random delays: nothing hangs, nothing is lost, replicas stay equal."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

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
