"""Checkpoints of several ranks: rank 0 writes what all have, and all resume from it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import seed_everything
from torch.utils.data import DataLoader

from lightning_elche import CadenceConfig, ElCheStrategy
from lightning_elche.partition.store_config import StoreConfig
from lightning_elche.testing import run_ranks
from tests.callbacks.partitioned import Drawing, ends_equal, fit_drawing, names_in, saver_of
from tests.ranks import Numbered, make_trainer

pytestmark = pytest.mark.slow

WITHIN_S = 60.0
SIZE = 240  # samples; 60 batches


def resume_under_ddp(root: str) -> dict[str, Any]:
    options: dict[str, Any] = {"devices": 2, "strategy": "ddp"}
    whole = fit_drawing(saver_of(f"{root}/a"), **options)
    os.environ["WORLD_SIZE"] = "2"  # Lightning removes it at the end of a fit
    other = saver_of(f"{root}/b", every=None)
    resumed = fit_drawing(other, resume=f"{root}/a/step-00000004", **options)
    report = other.last_restore
    return {"is_equal": ends_equal(whole, resumed), "report": report and report.replay}


def test_run_resumed_under_ddp_ends_with_the_same_bits(tmp_path: Path) -> None:
    """Both ranks go on in the middle of an epoch of three batches each."""
    results = run_ranks(resume_under_ddp, world_size=2, timeout_s=WITHIN_S, root=str(tmp_path))
    assert [result.value for result in results] == [{"is_equal": True, "report": "exact"}] * 2
    assert names_in(tmp_path / "a") == [f"step-{step:08d}" for step in range(1, 10)]


class Slow(Drawing):
    """Takes longer for a step than an exchange in the background does."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        time.sleep(0.02)
        return super().training_step(batch, batch_idx)


def train_elche(
    root: str,
    *,
    world_size: int,
    resume: str | None = None,
    steps: int = 40,
    kind: type[Drawing] = Drawing,
    **strategy: Any,
) -> dict[str, Any]:
    saver = saver_of(root, every=20, store=StoreConfig(max_retained=99, durability="flush"))
    seed_everything(7, verbose=False)
    model = kind()
    trainer = make_trainer(
        world_size,
        strategy=ElCheStrategy(
            cadence=CadenceConfig(anchor=3, max_anchor=3), timeout_s=30.0, **strategy
        ),
        callbacks=[saver],
        enable_checkpointing=True,
        max_epochs=2,
        max_steps=steps,
    )
    trainer.fit(model, DataLoader(Numbered(SIZE), batch_size=4, shuffle=True), ckpt_path=resume)
    return {
        "ids": [index for batch in model.ids for index in batch],
        "step": trainer.global_step,
        "report": saver.last_restore,
        "weight": model.layers[0].weight.detach().numpy(),
    }


def train_in_background(root: str) -> None:
    train_elche(root, world_size=2, steps=55, kind=Slow, backend="cpu", policy="async")


def go_on(root: str) -> tuple[dict[str, Any], dict[str, Any]]:
    world_size = int(os.environ["WORLD_SIZE"])
    first = train_elche(root, world_size=world_size)
    os.environ["WORLD_SIZE"] = str(world_size)  # as above
    return first, train_elche(root, world_size=world_size, resume=root, steps=60)


def test_run_of_two_ranks_goes_on_from_its_newest_checkpoint(tmp_path: Path) -> None:
    """It trains each sample of the epoch once before and after, and is never taken for exact."""
    results = [
        result.value
        for result in run_ranks(go_on, world_size=2, timeout_s=WITHIN_S, root=str(tmp_path))
    ]
    report = results[0][1]["report"]
    assert (report.world_saved, report.world_now, report.replay) == (2, 2, "approximate")
    assert results[0][1]["step"] >= 60
    saved = report.step
    assert sum(len(second["ids"]) for _, second in results) == SIZE - 4 * saved
    torch.testing.assert_close(results[0][1]["weight"], results[1][1]["weight"], rtol=0, atol=0)


def test_ranks_that_exchange_in_the_background_meet_for_a_checkpoint(tmp_path: Path) -> None:
    """In the midst of the epoch, where nothing else would make them."""
    run_ranks(
        train_in_background,
        world_size=2,
        timeout_s=WITHIN_S,
        root=str(tmp_path),
    )
    steps = [int(name.removeprefix("step-")) for name in names_in(tmp_path)]
    assert 20 <= min(steps) < 55
