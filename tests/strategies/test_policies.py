"""Every policy with every backend: nothing lost, replicas equal, one schedule, no hang."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch.optim.lr_scheduler import LambdaLR

from lightning_elche import CadenceConfig, ElCheStrategy
from lightning_elche.testing import run_ranks
from tests.ranks import Recorder, fit, weights

pytestmark = pytest.mark.slow

DDP = ("sync", "device")
OURS = [
    ("sync", "cpu"),
    ("cadence", "device"),
    ("cadence", "cpu"),
    ("async", "device"),
    ("async", "cpu"),
]
each_of_six = pytest.mark.parametrize(("policy", "backend"), [DDP, *OURS])
each_of_ours = pytest.mark.parametrize(("policy", "backend"), OURS)
in_background = pytest.mark.parametrize("policy", ["cadence", "async"])


def strategy_of(policy: Any, backend: Any, **options: Any) -> ElCheStrategy:
    return ElCheStrategy(policy=policy, backend=backend, **{"timeout_s": 30.0, **options})


def fit_all(policy: str, backend: str, num_ranks: int) -> dict[str, Any]:
    """Train two epochs of 204 samples with unequal ranks and validation in between."""
    trainer, model = fit(
        num_ranks,
        size=204,  # 51 batches; 2 and 3 divide it, since DDP would pad
        delays_ms=(1.0, 3.0, 10.0),
        strategy=strategy_of(policy, backend),
        max_epochs=2,
        val_size=24,
    )
    return {
        "ids": model.ids,
        "weights": weights(model),
        "global_step": trainer.global_step,
        "logged": {name: float(value) for name, value in trainer.callback_metrics.items()},
    }


@each_of_six
@pytest.mark.parametrize("world_size", [2, 3])
def test_samples_are_seen_once_and_replicas_end_equal(
    policy: str, backend: str, world_size: int
) -> None:
    """Each epoch trains every sample exactly once, and all ranks end with the same bits."""
    results = run_ranks(
        fit_all, world_size=world_size, policy=policy, backend=backend, num_ranks=world_size
    )
    ranks = [result.value for result in results]
    # A few of the second epoch may be trained while Lightning is in the first.
    seen = Counter(i for rank in ranks for epoch in (0, 1) for i in rank["ids"][epoch])
    assert seen == Counter([*range(204), *range(204)])
    first, *others = ranks
    for other in others:
        assert other["logged"] == first["logged"]
        assert other["global_step"] == first["global_step"]
        for name, value in first["weights"].items():
            assert torch.equal(value, other["weights"][name]), name


class Scheduled(Recorder):
    """Remembers the learning rate of every step, and at which step of all ranks it was used."""

    def configure_optimizers(self) -> Any:
        self.rates: list[tuple[int, float]] = []
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05)
        schedule = LambdaLR(optimizer, lambda step: 1.0 - step / 100.0)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step", "frequency": 1},
        }

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        strategy: Any = self.trainer.strategy
        own_steps = strategy.run.rounds.window.optimizer_steps
        position = self.trainer.global_step + own_steps
        self.rates.append((position, self.trainer.optimizers[0].param_groups[0]["lr"] / 0.05))
        return super().training_step(batch, batch_idx)

    def on_train_end(self) -> None:
        self.last_rate = self.trainer.optimizers[0].param_groups[0]["lr"] / 0.05


def rates_of(policy: str, backend: str) -> Any:
    model = Scheduled((1.0, 4.0))
    fit(2, model=model, strategy=strategy_of(policy, backend))
    return model.rates, model.last_rate


@each_of_ours
def test_schedule_is_that_of_one_device_at_the_same_total(policy: str, backend: str) -> None:
    """The rate of each batch belongs to the steps of all ranks; after 50 steps it is one half."""
    for result in run_ranks(rates_of, world_size=2, policy=policy, backend=backend):
        rates, last_rate = result.value
        assert last_rate == pytest.approx(0.5)
        assert [rate for _, rate in rates] == pytest.approx([1.0 - p / 100.0 for p, _ in rates])


class Fails(Recorder):
    """Raises on rank 1 after a few steps."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        if self.global_rank == 1 and batch_idx == 15:
            raise ArithmeticError("a spoiled batch")
        return super().training_step(batch, batch_idx)


def fail(policy: str, backend: str) -> None:
    fit(2, size=4000, model=Fails((2.0, 8.0)), strategy=strategy_of(policy, backend))


@each_of_ours
def test_failure_of_one_rank_ends_all(policy: str, backend: str) -> None:
    """Both ranks exit with an error that names the cause, well before the timeout."""
    began = time.monotonic()
    ranks = run_ranks(
        fail, world_size=2, timeout_s=30.0, check=False, policy=policy, backend=backend
    )
    assert time.monotonic() - began < 30.0
    assert all(rank.returncode for rank in ranks)
    assert "ArithmeticError: a spoiled batch" in ranks[1].output
    assert "Rank 1 failed with ArithmeticError" in ranks[0].output


class Sleepy(Recorder):
    """The first rank to agree to an event falls asleep before it hands in its snapshot."""

    naps = 3

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        strategy: Any = self.trainer.strategy
        state = strategy.state()
        if self.naps and state["window"]["has_agreed"] and state["phase"] == "idle":
            self.naps -= 1
            time.sleep(0.5)
        return super().training_step(batch, batch_idx)


class CountsEvents(Callback):
    """Keeps which events met all ranks."""

    def __init__(self) -> None:
        self.aligned: list[bool] = []

    def on_average_end(self, event: Any) -> None:
        self.aligned.append(event.is_aligned)


def fit_with_late_snapshots(policy: str) -> dict[str, Any]:
    counter = CountsEvents()
    strategy = strategy_of(policy, "cpu", snapshot_timeout_s=0.05)
    states: list[dict[str, object]] = []

    class KeepsState(Callback):
        def on_train_epoch_end(self, *_: Any) -> None:
            states.append(strategy.state())

    _, model = fit(
        2,
        size=800,
        model=Sleepy((4.0, 1.0)),
        strategy=strategy,
        callbacks=[counter, KeepsState()],
        val_size=8,
    )
    return {"ids": model.ids, "weights": weights(model), "state": states[-1], "a": counter.aligned}


@in_background
def test_late_snapshot_drops_the_attempt_for_all_and_is_repeated(policy: str) -> None:
    """An attempt that one rank is late for is dropped, counted and repeated; nothing is lost."""
    results = run_ranks(fit_with_late_snapshots, world_size=2, policy=policy)
    first, second = (result.value for result in results)
    assert first["state"]["dropped"] == second["state"]["dropped"] > 0
    assert Counter(first["ids"][0] + second["ids"][0]) == Counter(range(800))
    assert first["a"] == second["a"]
    assert first["a"].count(False) >= 2  # in the background
    assert all(torch.equal(first["weights"][n], second["weights"][n]) for n in first["weights"])


class KeepsLead(Recorder):
    """Rank 0 remembers how far it was ahead of rank 1 in the window, in steps.

    Not in its first step after an event, before which it did not ask for the other's steps.
    """

    def __init__(self) -> None:
        super().__init__((1.0, 6.0))
        self.leads: list[int] = []
        self.window = -1

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        strategy: Any = self.trainer.strategy
        rounds = strategy.run.rounds
        if rounds.plan.index == self.window:
            self.leads.append(rounds.window.batches - rounds.throttle._slowest)
        self.window = rounds.plan.index
        return super().training_step(batch, batch_idx)


def leads_of(policy: str, backend: str) -> tuple[int, list[int]]:
    model = KeepsLead()
    strategy = strategy_of(policy, backend, cadence=CadenceConfig(max_batch_diff=2))
    fit(2, model=model, strategy=strategy)
    return max(model.leads), sorted(i for ids in model.ids.values() for i in ids)


@pytest.mark.parametrize(
    ("policy", "backend"), [("cadence", "cpu"), ("async", "cpu"), ("async", "device")]
)
def test_fast_rank_is_held_back(policy: str, backend: str) -> None:
    """It begins no step when more than two steps ahead."""
    ranks = run_ranks(leads_of, world_size=2, policy=policy, backend=backend)
    (lead, first), (_, second) = (rank.value for rank in ranks)
    assert lead == 2
    assert sorted(first + second) == list(range(200))
