"""What users of Lightning do around training: launch, configure, validate, save, resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch.utils.data import DataLoader

from lightning_elche.testing import run_ranks
from tests.ranks import (
    Numbered,
    Recorder,
    TwoOptimizers,
    fit,
    make_loader,
    make_trainer,
    weights,
)

pytestmark = pytest.mark.slow


class CountsValidations(Callback):
    def __init__(self) -> None:
        self.at: list[int] = []

    def on_validation_end(self, trainer: Any, *_: Any) -> None:
        self.at.append(trainer.global_step)


def validate_at(interval: float) -> list[int]:
    counter = CountsValidations()
    fit(
        2,
        size=400,
        delays_ms=(1.0, 3.0),
        val_size=16,
        val_check_interval=interval,
        callbacks=[counter],
    )
    return counter.at


@pytest.mark.parametrize(("interval", "least"), [(1.0, [100]), (50, [50, 100]), (0.5, [50, 100])])
def test_validation_runs_when_the_agreed_count_crosses(interval: float, least: list[int]) -> None:
    """On both ranks at the same steps, at or soon after each multiple of the interval."""
    first, second = (rank.value for rank in run_ranks(validate_at, world_size=2, interval=interval))
    assert first == second
    assert len(first) == len(least)
    assert all(0 <= at - due < 50 for at, due in zip(first, least, strict=True))


def stop_when_no_better() -> tuple[int, int]:
    stop = EarlyStopping("val_loss", patience=1, min_delta=1e9)
    trainer, _ = fit(2, val_size=16, max_epochs=9, callbacks=[stop])
    return trainer.current_epoch, trainer.global_step


def test_early_stopping_stops_all_ranks_in_the_same_epoch() -> None:
    """Nothing improves by 1e9: after the second epoch all ranks stop."""
    assert [rank.value for rank in run_ranks(stop_when_no_better, world_size=2)] == [(2, 100)] * 2


def train_in_two_parts(folder: str, split: bool) -> dict[str, Any]:
    checkpoint = ModelCheckpoint(folder, save_last=True)
    options: dict[str, Any] = {"enable_checkpointing": True, "callbacks": [checkpoint]}
    if not split:
        trainer, model = fit(2, max_epochs=3, **options)
        return {"step": trainer.global_step, "ids": model.ids}
    fit(2, max_epochs=2, **options)
    model = Recorder((1.0,))
    trainer = make_trainer(2, max_epochs=3)
    trainer.fit(model, make_loader(200), ckpt_path=str(Path(folder) / "last.ckpt"))
    strategy: Any = trainer.strategy
    return {
        "step": trainer.global_step,
        "ids": model.ids,
        "events": strategy._restored["rounds"]["controller"]["index"],
        "weights": weights(model),
    }


def test_training_resumes_after_a_whole_epoch(tmp_path: Path) -> None:
    """The step count, the event count and the epoch go on, with every sample once."""
    first, second = (
        rank.value
        for rank in run_ranks(train_in_two_parts, world_size=2, folder=str(tmp_path), split=True)
    )
    assert first["step"] == second["step"] == 150
    assert sorted(first["ids"][2] + second["ids"][2]) == list(range(200))
    assert list(first["ids"]) == [2]
    assert first["events"] > 2
    assert torch.equal(first["weights"]["layers.0.weight"], second["weights"]["layers.0.weight"])


def fit_twice() -> tuple[int, int]:
    trainer, model = fit(2)
    trainer.fit_loop.max_epochs = 2
    trainer.fit(model, make_loader(200))
    return trainer.global_step, trainer.current_epoch


def test_second_fit_goes_on_counting() -> None:
    """As with stock Lightning, another `fit` of the same Trainer continues."""
    assert [rank.value for rank in run_ranks(fit_twice, world_size=2)] == [(100, 2)] * 2


def evaluate() -> float:
    trainer, model = fit(2, val_size=16)
    return float(trainer.validate(model, DataLoader(Numbered(16), batch_size=4))[0]["val_loss"])


@pytest.mark.filterwarnings("default:Using `DistributedSampler`")
def test_validate_after_fit_gives_all_ranks_the_same_metric() -> None:
    """`trainer.validate` works as with DDP."""
    first, second = (rank.value for rank in run_ranks(evaluate, world_size=2))
    assert first == second


def manual() -> tuple[list[int], torch.Tensor]:
    _, model = fit(2, model=TwoOptimizers())
    return model.ids[0], model.layers[3].weight.detach()


def test_manual_optimization_trains_each_sample_once() -> None:
    """Several optimizers and manual steps change nothing in how batches are dealt."""
    (first_ids, first), (second_ids, second) = (r.value for r in run_ranks(manual, world_size=2))
    assert sorted(first_ids + second_ids) == list(range(200))
    assert torch.equal(first, second)
