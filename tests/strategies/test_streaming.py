"""Ranks out of work train ahead into the next epoch: nothing lost, nothing twice, no hang."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch.optim.lr_scheduler import LambdaLR, StepLR

from lightning_elche import ChunkConfig, ElCheStrategy
from lightning_elche.data.dealer import Consumed
from lightning_elche.distributed.control_store import default_store
from lightning_elche.testing import run_ranks
from tests.ranks import Recorder, fit, weights

pytestmark = pytest.mark.slow

DELAYS_MS = {2: (4.0, 40.0), 3: (4.0, 12.0, 40.0)}  # unequal also on a busy machine
FAR = ChunkConfig(max_overshoot=100, overshoot_ceiling=100)  # a whole epoch
NUM_EPOCHS = 4
SIZE = 402  # 101 batches, the last one short
COMBINATIONS = [("cadence", "cpu"), ("async", "device"), ("async", "cpu")]
each_that_streams = pytest.mark.parametrize(("policy", "backend"), COMBINATIONS)


class Streaming(Recorder):
    """Files samples under the epoch that deals them, and remembers what was trained ahead.

    If it `waits`, the slowest rank stands still once, until another one has trained ahead.
    """

    waits = False

    def on_train_start(self) -> None:
        strategy: Any = self.trainer.strategy
        run = strategy.run
        self.dealt: dict[int, list[int]] = {}
        self.num_ahead = self.num_beyond = 0
        consume = run.dealer.consume

        def recorded() -> Consumed:
            consumed: Consumed = consume()
            epoch = self.current_epoch + consumed.is_ahead
            self.dealt.setdefault(epoch, []).extend(self.last_ids)
            plan, steps = run.rounds.plan, run.rounds.window.batches
            limit = plan.local_steps[self.global_rank] + plan.max_overshoot
            if consumed.is_ahead:
                default_store().set("has trained ahead", "1")
            self.num_ahead += consumed.is_ahead
            self.num_beyond += consumed.is_ahead and steps >= limit
            return consumed

        run.dealer.consume = recorded

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.last_ids = batch[1].tolist()
        is_last_rank = self.global_rank == self.trainer.world_size - 1
        if self.waits and is_last_rank and (self.current_epoch, batch_idx) == (1, 0):
            default_store().wait(["has trained ahead"], timedelta(seconds=30))
        return super().training_step(batch, batch_idx)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.01)
        by_epoch = StepLR(optimizer, step_size=1, gamma=0.5)
        by_step = LambdaLR(optimizer, lambda _: 1.0)
        return [optimizer], [
            {"scheduler": by_epoch, "interval": "epoch"},
            {"scheduler": by_step, "interval": "step"},
        ]


class KeepsMetrics(Callback):
    """Keeps the metrics of every epoch."""

    def __init__(self) -> None:
        self.samples: list[int] = []
        self.batches: list[int] = []

    def on_train_epoch_end(self, trainer: Any, *_: Any) -> None:
        self.samples.append(sum(trainer.strategy.epoch_metrics.samples))
        self.batches.append(sum(trainer.strategy.epoch_metrics.batches))


def stream(num_ranks: int, policy: Any, backend: Any, **options: Any) -> dict[str, Any]:
    chunks = options.pop("chunks", None)
    kept, model = KeepsMetrics(), Streaming(DELAYS_MS[num_ranks])
    model.waits = chunks == FAR
    strategy = ElCheStrategy(policy=policy, backend=backend, timeout_s=30.0, chunks=chunks)
    trainer, _ = fit(
        num_ranks,
        **{"size": SIZE, "max_epochs": NUM_EPOCHS, **options},
        model=model,
        strategy=strategy,
        callbacks=[kept],
    )
    schedulers: Any = trainer.lr_scheduler_configs
    return {
        "dealt": model.dealt,
        "ids": model.ids,
        "num_ahead": model.num_ahead,
        "num_beyond": model.num_beyond,
        "weights": weights(model),
        "samples": kept.samples,
        "batches": kept.batches,
        "schedules": [config.scheduler.last_epoch for config in schedulers],
        "global_step": trainer.global_step,
        "logged": {name: float(value) for name, value in trainer.callback_metrics.items()},
    }


def run(num_ranks: int, policy: str, backend: str, **options: Any) -> list[dict[str, Any]]:
    options = {"num_ranks": num_ranks, "policy": policy, "backend": backend, **options}
    return [rank.value for rank in run_ranks(stream, world_size=num_ranks, **options)]


def assert_exact(ranks: list[dict[str, Any]]) -> None:
    """Each epoch's samples were trained once and counted in it, and all ranks agree."""
    once = Counter(range(SIZE))
    for epoch in range(NUM_EPOCHS):
        seen = Counter(i for rank in ranks for i in rank["dealt"].get(epoch, ()))
        assert seen == once, epoch
    for rank in ranks:
        assert sorted(rank["dealt"]) == list(range(NUM_EPOCHS))
        assert rank["samples"] == [SIZE] * NUM_EPOCHS
        assert rank["batches"] == [101] * NUM_EPOCHS
        assert rank["global_step"] == 101 * NUM_EPOCHS
        assert rank["schedules"] == [NUM_EPOCHS, 101 * NUM_EPOCHS]
        assert rank["logged"] == ranks[0]["logged"]
        for name, value in ranks[0]["weights"].items():
            assert torch.equal(value, rank["weights"][name]), name


@each_that_streams
@pytest.mark.parametrize(("num_ranks", "workers"), [(2, 0), (2, 1), (3, 0)])
def test_every_epoch_is_exact_although_ranks_train_ahead(
    policy: str, backend: str, workers: int, num_ranks: int
) -> None:
    """By the epoch that deals it, each sample is trained once; some are trained ahead."""
    loader = {"num_workers": workers}
    ranks = run(num_ranks, policy, backend, loader=loader, val_size=24, chunks=FAR)
    assert_exact(ranks)
    assert sum(rank["num_ahead"] for rank in ranks) > 0
    assert [rank["num_beyond"] for rank in ranks] == [0] * num_ranks


@each_that_streams
def test_fixed_parts_are_trained_ahead_exactly(policy: str, backend: str) -> None:
    """Parts that were not dealt while training add up, too, whoever opens the epoch first."""
    ranks = run(2, policy, backend, chunks=ChunkConfig(progressive=False))
    assert_exact(ranks)
    assert ranks[0]["num_beyond"] == 0


@pytest.mark.parametrize(
    "options",
    [
        {"chunks": ChunkConfig(max_overshoot=0)},
        {"chunks": ChunkConfig(lookahead_epochs=0)},
        {"accumulate_grad_batches": 2},
        {"max_epochs": 1},
        {"max_steps": 202, "max_epochs": -1},
        {"reload_dataloaders_every_n_epochs": 1},
    ],
    ids=lambda options: next(iter(options)),
)
def test_nobody_trains_ahead_where_it_is_off(options: dict[str, Any]) -> None:
    """By option, and where Lightning's settings leave no meaning to it."""
    ranks = run(2, "async", "cpu", **{"max_epochs": 2, **options})
    assert [rank["num_ahead"] for rank in ranks] == [0, 0]
    for rank in ranks:
        assert rank["dealt"] == rank["ids"]


def test_nobody_trains_ahead_with_the_default_policy() -> None:
    """On the device, and with policy "cadence", ranks meet at the end of an epoch."""
    ranks = run(2, "cadence", "device")
    assert_exact(ranks)
    assert [rank["num_ahead"] for rank in ranks] == [0, 0]
