"""Cadence averaging in a training loop of one's own."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from typing import Any

import pytest
import torch
from lightning.fabric import Fabric, seed_everything

from lightning_elche import CadenceConfig, ChunkConfig, ElCheLoop, GuardConfig
from lightning_elche.distributed.control_store import default_store
from lightning_elche.loops.run_config import RunConfig
from lightning_elche.testing import run_ranks
from tests.ranks import make_loader, move_to_node

pytestmark = pytest.mark.slow

DELAYS_S = (0.001, 0.005)


def train(
    world_size: int,
    *,
    epochs: int = 2,
    stop_at: int | None = None,
    fail_at: int | None = None,
    waits: bool = False,
    num_nodes: int = 1,
    **options: Any,
) -> dict[str, Any]:
    """Train a linear model; rank 1 is slower, and the one that stops, fails or waits."""
    seed_everything(3, verbose=False)
    strategy = "ddp" if world_size > 1 else "auto"
    fabric = Fabric(
        accelerator="cpu", devices=world_size // num_nodes, num_nodes=num_nodes, strategy=strategy
    )
    fabric.launch()
    model = fabric.to_device(torch.nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    loader = make_loader(200, generator=torch.Generator().manual_seed(5))
    ids: list[list[int]] = []
    with ElCheLoop(fabric, model, [optimizer], **options) as loop:
        for epoch in range(epochs):
            ids.append([])
            for step, (features, indices) in enumerate(loop.epoch(loader)):
                ids[-1] += indices.tolist()
                if fabric.global_rank == 1 and step == stop_at:
                    loop.stop()
                if fabric.global_rank == 1 and step == fail_at:
                    raise ArithmeticError("a spoiled batch")
                loss = (model(features).squeeze(1) - features.sum(1)).square().mean()
                loop.add_loss(loss)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                time.sleep(DELAYS_S[fabric.local_rank] * (8 if waits else 1))
                if waits and fabric.global_rank == 0 and loop._run.rounds.window.ahead_batches:
                    default_store().set("has trained ahead", "1")
                if waits and (fabric.global_rank, epoch, step) == (1, 1, 0):
                    default_store().wait(["has trained ahead"], timedelta(seconds=30))
    return {
        "ids": ids,
        "weight": model.weight.detach(),
        "step": loop.global_step,
        "stopped": loop.is_stopped,
        "metrics": loop.epoch_metrics,
        "explanation": loop.explain(last=100),
    }


def train_two(**options: Any) -> dict[str, Any]:
    return train(2, **options)


def test_every_sample_is_seen_once_by_unequal_ranks() -> None:
    """In each epoch, with more of it on the fast rank."""
    first, second = (rank.value for rank in run_ranks(train_two, world_size=2))
    for epoch in (0, 1):
        assert sorted(first["ids"][epoch] + second["ids"][epoch]) == list(range(200))
    assert len(first["ids"][1]) > len(second["ids"][1])


def test_replicas_and_metrics_are_equal_after_an_epoch() -> None:
    """Parameters bit for bit, the step count and the metrics."""
    first, second = (rank.value for rank in run_ranks(train_two, world_size=2))
    assert torch.equal(first["weight"], second["weight"])
    assert first["step"] == second["step"] == 100
    assert first["metrics"] == second["metrics"]
    assert "agreed last" in first["explanation"]


def train_on_nodes() -> dict[str, Any]:
    move_to_node(int(os.environ["RANK"]))
    costly = CadenceConfig(anchor=1, max_anchor=1, overhead_target=0.01)
    config = RunConfig(group="node", cadence=costly, guard=GuardConfig(enabled=False))
    return train(4, num_nodes=2, config=config)


def test_nodes_average_inside_and_end_equal() -> None:
    """Two nodes of two ranks."""
    ranks = [rank.value for rank in run_ranks(train_on_nodes, world_size=4)]
    for epoch in (0, 1):
        assert sorted(i for rank in ranks for i in rank["ids"][epoch]) == list(range(200))
    assert all(torch.equal(rank["weight"], ranks[0]["weight"]) for rank in ranks)
    assert "exchange inside nodes" in ranks[0]["explanation"]


def train_ahead(**options: Any) -> dict[str, Any]:
    far = ChunkConfig(max_overshoot=100, overshoot_ceiling=100)
    config = RunConfig(chunks=far, **options)
    return train(2, epochs=4, waits=True, config=config, num_epochs=4)


@pytest.mark.parametrize(("policy", "backend"), [("async", "device"), ("cadence", "cpu")])
def test_ranks_that_train_ahead_lose_nothing(policy: str, backend: str) -> None:
    """Over all epochs each sample is seen as often as there are epochs, and replicas are equal."""
    ranks = run_ranks(train_ahead, world_size=2, policy=policy, backend=backend)
    first, second = (rank.value for rank in ranks)
    seen = [i for rank in (first, second) for ids in rank["ids"] for i in ids]
    assert sorted(seen) == sorted([*range(200)] * 4)
    assert torch.equal(first["weight"], second["weight"])
    assert sum(first["metrics"].samples) == 200
    parts = zip(first["ids"], second["ids"], strict=True)
    assert max(len(one) + len(other) for one, other in parts) > 200


def test_stop_of_one_rank_ends_the_epoch_on_all() -> None:
    """Both leave at the same event."""
    ranks = run_ranks(train_two, world_size=2, epochs=1, stop_at=3)
    first, second = (rank.value for rank in ranks)
    assert first["stopped"] is second["stopped"] is True
    assert first["step"] == second["step"] < 50


def test_failure_of_one_rank_ends_the_other() -> None:
    """The other rank names it."""
    ranks = run_ranks(train_two, world_size=2, timeout_s=30.0, check=False, fail_at=3)
    assert all(rank.returncode for rank in ranks)
    assert "Rank 1 failed with ArithmeticError: a spoiled batch" in ranks[0].output


def leave_early() -> None:
    seed_everything(3, verbose=False)
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
    fabric.launch()
    model = torch.nn.Linear(8, 1)
    loader = make_loader(200, generator=torch.Generator().manual_seed(5))
    with ElCheLoop(fabric, model, [torch.optim.SGD(model.parameters(), lr=0.01)]) as loop:
        for _ in loop.epoch(loader):
            if fabric.global_rank == 1:
                break


def test_leaving_the_loop_early_ends_all_ranks_with_the_fix() -> None:
    """A `break` on one rank would leave the others waiting; both say what to do."""
    ranks = run_ranks(leave_early, world_size=2, timeout_s=30.0, check=False)
    assert all(rank.returncode for rank in ranks)
    assert all("Call `stop()` and let" in rank.output for rank in ranks)


def test_one_device_trains_as_without_the_loop() -> None:
    """Batches come straight from the loader."""
    result = train(1)
    assert sorted(result["ids"][0]) == list(range(200))
    assert (result["step"], result["metrics"], result["explanation"]) == (0, None, "")
