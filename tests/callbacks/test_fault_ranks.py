"""Faults of one of several ranks: the others are not held up, and the average is sound."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_elche import CadenceConfig, ElCheStrategy
from lightning_elche.callbacks.rollback import Rollback
from lightning_elche.callbacks.run_events import subscribe
from lightning_elche.control.spike import SpikeConfig
from lightning_elche.coordination.faults import FaultConfig
from lightning_elche.exceptions import BreakerTripped
from lightning_elche.testing import RankResult, run_ranks
from tests.callbacks.faulty import TOO_MUCH, Guarding, Needs
from tests.ranks import Recorder, fit

pytestmark = pytest.mark.slow

CADENCE = CadenceConfig(anchor=3, max_anchor=3)
# With an equal share of the batches for each rank, however fast it is.
EVENLY = CadenceConfig(anchor=3, max_anchor=3, max_batch_diff=1)
COLLECTIVES = (
    "all_gather",
    "all_gather_into_tensor",
    "all_gather_object",
    "all_reduce",
    "all_to_all",
    "all_to_all_single",
    "barrier",
    "broadcast",
    "broadcast_object_list",
    "gather",
    "gather_object",
    "monitored_barrier",
    "recv",
    "reduce",
    "reduce_scatter",
    "scatter",
    "send",
)


def strategy() -> ElCheStrategy:
    return ElCheStrategy(policy="async", cadence=CADENCE, timeout_s=20.0)


# A rank for which no batch fits any more


class Starved(Recorder):
    """Needs more memory than there is on rank 1, from its fourth batch on."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        if self.global_rank == 1 and batch_idx >= 3:
            torch.empty(TOO_MUCH)
        return super().training_step(batch, batch_idx)


class Windows(Guarding):
    """Keeps what each rank has done before each averaging event."""

    def __init__(self, config: FaultConfig | None = None) -> None:
        super().__init__(config)
        self.windows: list[list[tuple[int, int, float]]] = []

    def on_average_end(self, event: Any) -> None:
        super().on_average_end(event)
        self.windows.append([(own.batches, own.skipped, own.weight) for own in event.reports])


def starve() -> tuple[Any, ...]:
    rungs: list[Any] = []
    subscribe(lambda kind, data: rungs.append((kind, data.get("events"))))
    windows = Windows()
    with pytest.raises(BreakerTripped) as tripped:
        fit(2, size=4000, model=Starved((2.0,)), callbacks=[windows], strategy=strategy())
    return tripped.value.key, tripped.value.failures, rungs, windows.windows


@pytest.fixture(scope="module")
def starved() -> list[RankResult]:
    return run_ranks(starve, world_size=2, timeout_s=60.0)


def test_run_ends_on_all_ranks_where_no_batch_fits_one(starved: list[RankResult]) -> None:
    """With the rank that has failed, and how often."""
    assert [result.value[:2] for result in starved] == [("rank:1:oom", 8)] * 2


def test_rungs_are_told_in_their_order(starved: list[RankResult]) -> None:
    """By the rank that takes them."""
    rungs = [rung for rung in starved[1].value[2] if rung[0] != "batch_skipped"]
    assert rungs == [("sit_out", 1), ("sit_out", 2), ("sit_out", 4), ("breaker", None)]


def test_nobody_waits_for_the_rank_that_sits_out(starved: list[RankResult]) -> None:
    """The other one makes its steps between all events, and nothing else weighs."""
    windows = starved[0].value[3][:-1]  # the last one was cut short
    assert min(batches for (batches, _, _), _ in windows) >= 3
    assert [weight for _, (_, _, weight) in windows[2:]] == [0.0] * (len(windows) - 2)


def test_rank_that_sits_out_uses_up_no_data(starved: list[RankResult]) -> None:
    """But for one batch after each time."""
    handed_out = sum(batches for _, (batches, _, _) in starved[0].value[3])
    skipped = sum(skipped for _, (_, skipped, _) in starved[0].value[3])
    assert (handed_out, skipped) == (11, 8)


# Ranks with a few faults


class Troubled(Recorder):
    """Has no memory for two batches, spoils parameters once, and logs what it trains."""

    def __init__(self) -> None:
        super().__init__((2.0,))
        self.trained: list[int] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        LOG.append("step")
        place = (self.global_rank, batch_idx)
        if place == (0, 4):
            torch.empty(TOO_MUCH)
        loss = super().training_step(batch, batch_idx)
        if place == (1, 20):
            return Needs.apply(loss)
        if place == (1, 24):
            loss = loss * torch.nan
        self.trained.extend(batch[1].tolist())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)


LOG: list[str] = []


@contextmanager
def watched_collectives() -> Iterator[None]:
    """Log each call of a collective."""
    modules = (dist, dist.distributed_c10d)
    stock = {name: getattr(dist, name) for name in COLLECTIVES}

    def call(name: str, *args: Any, **kwargs: Any) -> Any:
        LOG.append(name)
        return stock[name](*args, **kwargs)

    for module in modules:
        for name in COLLECTIVES:
            setattr(module, name, partial(call, name))
    yield
    for module in modules:
        for name in COLLECTIVES:
            setattr(module, name, stock[name])


class Replicas(Callback):
    """Keeps what replicas hold after each event, and who had no say."""

    def __init__(self) -> None:
        self.after: list[tuple[bool, list[float], bool, int]] = []
        self.reports: list[Any] = []

    def on_average_end(self, event: Any) -> None:
        LOG.append("event")
        tensors = self.module.state_dict().values()
        held = torch.cat([tensor.double().flatten() for tensor in tensors])
        moments = len(self.trainer.optimizers[0].state)
        is_finite = bool(held.isfinite().all())
        self.after.append((event.reports[1].sits_out, held.tolist(), is_finite, moments))
        self.reports += [
            (own.skipped, own.redealt, own.sits_out, own.weight) for own in event.reports
        ]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.trainer, self.module = trainer, pl_module


def trouble() -> tuple[Any, ...]:
    replicas, model = Replicas(), Troubled()
    guarding = Guarding(FaultConfig(redeal_skipped=True))
    keeping = ElCheStrategy(policy="async", cadence=EVENLY, timeout_s=20.0, optimizer_state="keep")
    with watched_collectives():
        fit(2, size=400, model=model, callbacks=[guarding, replicas], strategy=keeping)
    return replicas.after, replicas.reports, model.trained, LOG, guarding.guard.status()


@pytest.fixture(scope="module")
def troubled() -> list[RankResult]:
    return run_ranks(trouble, world_size=2, timeout_s=60.0)


def test_spoiled_rank_adopts_the_average(troubled: list[RankResult]) -> None:
    """Bit for bit, and with an optimizer that begins anew; its own numbers never count."""
    first, second = (result.value[0] for result in troubled)
    healed = [index for index, (sits_out, *_) in enumerate(first) if sits_out]
    assert len(healed) == 1
    assert [held for _, held, _, _ in first] == [held for _, held, _, _ in second]
    assert all(is_finite for _, _, is_finite, _ in first + second)
    assert (first[healed[0]][3], second[healed[0]][3]) == (6, 0)


def test_spoiled_rank_weighs_nothing(troubled: list[RankResult]) -> None:
    """At the event that heals it."""
    weights = [weight for *_, sits_out, weight in troubled[0].value[1] if sits_out]
    assert weights == [0.0]


def test_skipped_batch_is_trained_by_another_rank(troubled: list[RankResult]) -> None:
    """So that every sample is trained once, and the ledger says so."""
    trained = Counter(sample for result in troubled for sample in result.value[2])
    skipped = sum(skipped for skipped, *_ in troubled[0].value[1])
    redealt = sum(redealt for _, redealt, *_ in troubled[0].value[1])
    assert (skipped, redealt) == (2, 2)
    assert trained == Counter(range(400))


def test_ranks_talk_at_averaging_events_only(troubled: list[RankResult]) -> None:
    """Between two steps that no event divides there is no collective."""
    for result in troubled:
        log = " ".join(result.value[3]).split("event")
        inside = [window.strip().partition("step")[2].rpartition("step")[0] for window in log]
        assert set(" ".join(inside).split()) <= {"step"}
        assert sum(window.count("step") for window in log) > 20


def test_numbers_of_all_ranks_are_told_at_the_end(troubled: list[RankResult]) -> None:
    """In a sentence of rank zero, and in the status of every rank."""
    assert [result.value[4]["skipped"] for result in troubled] == [[1, 1]] * 2
    assert "Faults by rank: [1, 1] batches skipped for want of memory" in troubled[0].output


# Ranks that are spoiled for good


class Spoiled(Recorder):
    """Has a loss that is not finite on some ranks, from the fourth batch on."""

    def __init__(self, ranks: Sequence[int]) -> None:
        super().__init__((2.0,))
        self.ranks = ranks

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = super().training_step(batch, batch_idx)
        return loss * torch.nan if self.global_rank in self.ranks and batch_idx >= 3 else loss


def spoil(ranks: Sequence[int], folder: str) -> tuple[str, int]:
    with pytest.raises(BreakerTripped) as tripped:
        fit(
            2,
            size=4000,
            model=Spoiled(ranks),
            callbacks=[Guarding()],
            strategy=strategy(),
            enable_checkpointing=True,
            default_root_dir=folder,
        )
    return tripped.value.key, tripped.value.failures


def test_run_ends_where_a_rank_is_spoiled_again_and_again(tmp_path: Path) -> None:
    """After five events in a row, with a checkpoint of what the other one has learnt."""
    results = run_ranks(spoil, world_size=2, timeout_s=60.0, ranks=(1,), folder=str(tmp_path))
    assert [result.value for result in results] == [("rank:1:nonfinite", 5)] * 2
    (saved,) = tmp_path.rglob("*.ckpt")
    state = torch.load(saved, weights_only=False)["state_dict"]
    assert all(bool(tensor.isfinite().all()) for tensor in state.values())


def test_run_ends_at_once_where_no_rank_is_sound(tmp_path: Path) -> None:
    """And saves nothing, which could take the place of a sound checkpoint."""
    results = run_ranks(spoil, world_size=2, timeout_s=60.0, ranks=(0, 1), folder=str(tmp_path))
    assert [result.value for result in results] == [("run:nonfinite", 1)] * 2
    assert list(tmp_path.rglob("*.ckpt")) == []


class SpoiledOnce(Recorder):
    """Has one loss that is not finite, on rank 1."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = super().training_step(batch, batch_idx)
        return loss * torch.nan if (self.global_rank, batch_idx) == (1, 3) else loss


def roll_back() -> tuple[int, list[int]]:
    # Two samples a batch: losses of sound batches differ by more than the default factor.
    rollback, guarding = Rollback(spike=SpikeConfig(factor=1e6)), Guarding()
    callbacks = [guarding, rollback]
    fit(2, size=80, model=SpoiledOnce((2.0,)), callbacks=callbacks, strategy=strategy())
    return rollback.incidents, guarding.guard.status()["healed"]


def test_bad_batch_is_undone_where_that_is_possible() -> None:
    """By `Rollback`, so that nobody has to be healed."""
    results = run_ranks(roll_back, world_size=2, timeout_s=60.0)
    incidents, healed = results[1].value
    assert incidents >= 1
    assert healed == [0, 0]
