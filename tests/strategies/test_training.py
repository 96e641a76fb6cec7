"""Real training on real ranks of different speed."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from torch.optim.lr_scheduler import LambdaLR

from lightning_elche import CadenceConfig, ChunkConfig, ElCheStrategy
from lightning_elche.testing import run_ranks
from tests.ranks import Recorder, fit, weights

pytestmark = pytest.mark.slow

SPEEDS_1_3_10 = (1.0, 3.0, 10.0)


def fit_on_rank(options: dict[str, Any]) -> dict[str, Any]:
    trainer, model = fit(**options)
    strategy: Any = trainer.strategy
    return {
        "ids": model.ids,
        "weights": weights(model),
        "global_step": trainer.global_step,
        "metrics": strategy.epoch_metrics,
        "logged": {name: float(value) for name, value in trainer.callback_metrics.items()},
    }


def run(world_size: int, **options: Any) -> list[dict[str, Any]]:
    options = {"world_size": world_size, **options}
    fixed = {"ELCHE_DELAYS_SEED": ""}  # these tests are about certain speeds
    ranks = run_ranks(fit_on_rank, world_size=world_size, env=fixed, options=options)
    return [rank.value for rank in ranks]


def seen_in_epoch(ranks: list[dict[str, Any]], epoch: int) -> Counter[int]:
    return Counter(index for rank in ranks for index in rank["ids"][epoch])


@pytest.mark.parametrize("workers", [0, 1])
def test_every_sample_is_seen_once_per_epoch_at_speeds_1_3_10(workers: int) -> None:
    """Three ranks of very different speed train each sample exactly once in every epoch."""
    ranks = run(
        3,
        size=402,  # 101 batches, the last one short
        delays_ms=SPEEDS_1_3_10,
        max_epochs=2,
        loader={"num_workers": workers},
    )
    once = Counter(range(402))
    assert [seen_in_epoch(ranks, epoch) for epoch in (0, 1)] == [once, once]
    assert len(ranks[0]["ids"][1]) > len(ranks[2]["ids"][1])  # by how much depends on the load


def test_replicas_are_bit_equal_after_training_with_uneven_ranks() -> None:
    """Parameters, running statistics and counters are the same bits on every rank."""
    first, *others = run(3, delays_ms=SPEEDS_1_3_10, max_epochs=2)
    for other in others:
        for name, value in first["weights"].items():
            assert torch.equal(value, other["weights"][name]), name


def test_step_count_and_metrics_are_agreed_with_uneven_ranks() -> None:
    """All ranks report the optimizer steps of all, and the same metrics of the epoch."""
    ranks = run(2, delays_ms=(1.0, 4.0), val_size=40)
    assert [rank["global_step"] for rank in ranks] == [50, 50]
    assert ranks[0]["metrics"] == ranks[1]["metrics"]
    assert ranks[0]["logged"] == ranks[1]["logged"]


def test_epoch_metrics_count_all_samples_with_uneven_ranks() -> None:
    """Samples and shares of the epoch add up over ranks."""
    metrics = run(2, delays_ms=(1.0, 12.0))[0]["metrics"]
    assert sum(metrics.samples) == 200
    assert sum(metrics.share) == pytest.approx(1.0)
    assert metrics.share[0] > 0.5


def test_fixed_parts_follow_the_ratios_without_progressive_dispatch() -> None:
    """`partition_ratios` deals 3 to 1, one batch for each rank aside."""
    chunks = ChunkConfig(progressive=False, partition_ratios=(3.0, 1.0))
    ranks = run(2, strategy=ElCheStrategy(chunks=chunks, timeout_s=30.0))
    assert [len(rank["ids"][0]) for rank in ranks] == [4 * 37, 4 * 13]
    assert seen_in_epoch(ranks, 0) == Counter(range(200))


@pytest.mark.parametrize(("limit", "batches"), [(0.5, 25), (7, 14)])
def test_limits_shrink_the_pool(limit: float, batches: int) -> None:
    """A fraction counts batches of the epoch, an integer batches per rank."""
    ranks = run(2, limit_train_batches=limit)
    assert sum(seen_in_epoch(ranks, 0).values()) == 4 * batches


def test_max_steps_ends_at_the_agreed_count() -> None:
    """`max_steps` counts the steps of all ranks, and no step more is made."""
    ranks = run(2, delays_ms=(1.0, 4.0), max_epochs=-1, max_steps=70)
    assert [rank["global_step"] for rank in ranks] == [70, 70]


def test_accumulated_gradients_are_never_averaged_mid_way() -> None:
    """With accumulation over 4 batches, ranks meet only after optimizer steps."""
    ranks = run(2, delays_ms=(1.0, 3.0), accumulate_grad_batches=4)
    own_steps = [-(-(len(rank["ids"][0]) // 4) // 4) for rank in ranks]
    assert ranks[0]["global_step"] == sum(own_steps)


class Scheduled(Recorder):
    """Remembers the learning rate of every sample's batch."""

    def configure_optimizers(self) -> Any:
        self.rates: list[float] = []
        optimizer = torch.optim.SGD(self.parameters(), lr=1.0)
        schedule = LambdaLR(optimizer, lambda step: 1.0 - step / 100.0)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step", "frequency": 1},
        }

    def on_train_end(self) -> None:
        self.last_rate = self.trainer.optimizers[0].param_groups[0]["lr"]


def last_rate_of_two() -> float:
    model = Scheduled((1.0, 4.0))
    fit(2, model=model)
    return model.last_rate


def test_schedule_follows_the_work_of_all_ranks() -> None:
    """After 50 batches over two ranks, the schedule stands at step 50 on both."""
    ranks = run_ranks(last_rate_of_two, world_size=2)
    assert [rank.value for rank in ranks] == pytest.approx([0.5, 0.5])


def plain_and_ours(precision: str) -> list[dict[str, torch.Tensor]]:
    states = []
    for strategy in ("auto", "elche"):
        _, model = fit(1, val_size=8, strategy=strategy, max_epochs=2, precision=precision)
        states.append(weights(model))
    return states


def test_one_device_equals_plain_lightning_bit_for_bit() -> None:
    """With one device the strategy changes nothing at all."""
    plain, ours = plain_and_ours("32-true")
    assert all(torch.equal(plain[name], ours[name]) for name in plain)


def test_one_device_starts_no_process_group_and_no_thread() -> None:
    """A single device needs neither."""
    import threading

    before = threading.active_count()
    trainer, _ = fit(1, val_size=8, strategy="elche")
    assert not torch.distributed.is_initialized()
    assert trainer.strategy.launcher is None
    assert threading.active_count() == before


def private_streams() -> tuple[int, list[int]]:
    """Each rank owns a stream of its own length; returns (steps of all, what this rank saw)."""

    class Stream(torch.utils.data.IterableDataset[tuple[torch.Tensor, int]]):
        def __iter__(self) -> Any:
            rank = torch.distributed.get_rank()
            return ((torch.ones(8) * i, i + 1000 * rank) for i in range(40 + 20 * rank))

    seed_everything(7, verbose=False)
    model = Recorder((3.0, 1.0))
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy=ElCheStrategy(cadence=CadenceConfig(anchor=3)),
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    trainer.fit(model, torch.utils.data.DataLoader(Stream(), batch_size=4))
    return trainer.global_step, model.ids[0]


def test_private_streams_end_together_with_uneven_lengths() -> None:
    """Ranks with streams of their own train all of them, and the shorter one waits."""
    ranks = [rank.value for rank in run_ranks(private_streams, world_size=2)]
    assert [steps for steps, _ in ranks] == [25, 25]
    assert [len(ids) for _, ids in ranks] == [40, 60]


def sync_and_ddp() -> list[dict[str, torch.Tensor]]:
    states = []
    for strategy in ("ddp", ElCheStrategy(policy="sync")):
        _, model = fit(2, strategy=strategy, max_epochs=2)
        states.append(weights(model))
    return states


def test_sync_policy_equals_stock_ddp_bit_for_bit() -> None:
    """`policy="sync"` is DDP: same data, same gradients, same weights."""
    for rank in run_ranks(sync_and_ddp, world_size=2):
        ddp, sync = rank.value
        assert all(torch.equal(ddp[name], sync[name]) for name in ddp)
