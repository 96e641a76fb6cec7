"""Training with an outer optimizer, with compression, and with both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_elche import (
    AveragingEvent,
    CadenceConfig,
    ElCheStrategy,
    GuardConfig,
    OuterOptimizer,
)
from lightning_elche.callbacks.cadence_monitor import metrics_of
from lightning_elche.testing import run_ranks
from tests.ranks import Recorder, fit, make_loader, make_trainer, weights

pytestmark = pytest.mark.slow

OPTIONS: dict[str, dict[str, Any]] = {
    "outer": {"outer_optimizer": OuterOptimizer()},
    "bf16": {"compression": "bf16"},
    "both": {"outer_optimizer": OuterOptimizer(), "compression": "bf16"},
}
each_option = pytest.mark.parametrize("name", OPTIONS)


def strategy_with(name: str, **options: Any) -> ElCheStrategy:
    return ElCheStrategy(
        timeout_s=30.0, cadence=CadenceConfig(anchor=5, max_anchor=5), **OPTIONS[name], **options
    )


def train(num_ranks: int, name: str, backend: str) -> dict[str, torch.Tensor]:
    delays = (1.0, 3.0, 5.0)[:num_ranks]
    strategy = strategy_with(name, backend=backend)
    _, model = fit(num_ranks, delays_ms=delays, max_epochs=2, strategy=strategy)
    return weights(model)


@each_option
@pytest.mark.parametrize(("world_size", "backend"), [(2, "device"), (3, "device"), (3, "cpu")])
def test_replicas_are_bit_equal_after_training(name: str, world_size: int, backend: str) -> None:
    """Parameters, running statistics and counters, whatever is made of the average."""
    ranks = run_ranks(
        train, world_size=world_size, num_ranks=world_size, name=name, backend=backend
    )
    for rank in ranks[1:]:
        for key, value in ranks[0].value.items():
            assert torch.equal(rank.value[key], value), key


class Keeps(Callback):
    """Copies what the averager keeps, when training starts and when it ends."""

    def on_train_start(self, trainer: Any, *_: Any) -> None:
        self.at_start = kept_in(trainer)

    def on_train_end(self, trainer: Any, *_: Any) -> None:
        self.at_end = kept_in(trainer)


def kept_in(trainer: Any) -> dict[str, dict[int, torch.Tensor]]:
    averager = trainer.strategy.run.rounds._replica.averager
    return {
        name: {key: tensor.clone() for key, tensor in averager._kept(name).items()}
        for name in ("last", "momentum")
    }


def resume(folder: str, name: str) -> tuple[Any, Any]:
    keeps, checkpoint = Keeps(), ModelCheckpoint(folder, save_last=True)
    options: dict[str, Any] = {"enable_checkpointing": True, "callbacks": [keeps, checkpoint]}
    fit(2, delays_ms=(1.0, 3.0), strategy=strategy_with(name), **options)
    saved = keeps.at_end
    trainer = make_trainer(2, max_epochs=2, strategy=strategy_with(name), callbacks=[keeps])
    path = str(Path(folder) / "last.ckpt")
    torch.load(path, weights_only=True)
    trainer.fit(Recorder((1.0, 3.0)), make_loader(200), ckpt_path=path)
    return saved, keeps.at_start


@each_option
def test_resume_goes_on_from_the_same_bits(name: str, tmp_path: Path) -> None:
    """A checkpoint, which loads as weights only, restores momentum and start on both ranks."""
    for rank in run_ranks(resume, world_size=2, folder=str(tmp_path), name=name):
        saved, resumed = rank.value
        assert saved["last"]
        for kind, tensors in saved.items():
            assert resumed[kind].keys() == tensors.keys()
            assert all(torch.equal(resumed[kind][key], value) for key, value in tensors.items())


def fit_twice() -> tuple[Any, Any]:
    keeps = Keeps()
    trainer, model = fit(2, strategy=strategy_with("outer"), callbacks=[keeps])
    saved = keeps.at_end
    trainer.fit_loop.max_epochs = 2
    trainer.fit(model, make_loader(200))
    return saved["momentum"], keeps.at_start["momentum"]


def test_second_fit_keeps_the_momentum() -> None:
    """As it keeps the states of the optimizers."""
    for rank in run_ranks(fit_twice, world_size=2):
        saved, kept = rank.value
        assert all(torch.equal(kept[key], value) for key, value in saved.items())
        assert any(value.any() for value in saved.values())


class Measures(Callback):
    """Remembers what the events exchanged and what the monitor logs of it."""

    def __init__(self) -> None:
        self.sizes: set[tuple[int, int, float]] = set()

    def on_average_end(self, event: AveragingEvent) -> None:
        if event.exchanged_bytes:
            logged = metrics_of(event)["elche/saved_bytes"]
            self.sizes.add((event.exchanged_bytes, event.saved_bytes, logged))


def sizes_with(name: str) -> set[tuple[int, int, float]]:
    measures = Measures()
    fit(2, strategy=strategy_with(name), callbacks=[measures])
    return measures.sizes


@pytest.mark.parametrize(("name", "exchanged", "saved"), [("outer", 452, 0), ("bf16", 226, 226)])
def test_saved_bytes_are_reported(name: str, exchanged: int, saved: int) -> None:
    """97 parameters and 16 running statistics in four bytes each, or in two."""
    assert run_ranks(sizes_with, world_size=2, name=name)[0].value == {
        (exchanged, saved, float(saved))
    }


def diverge(momentum: float) -> None:
    guard = GuardConfig(threshold=1e-9)
    outer = OuterOptimizer(momentum=momentum)
    strategy = ElCheStrategy(
        cadence=CadenceConfig(anchor=2, max_anchor=2),
        guard=guard,
        outer_optimizer=outer,
        timeout_s=30.0,
    )
    fit(2, strategy=strategy)


@pytest.mark.parametrize(("momentum", "warnings"), [(0.9, 1), (0.0, 0)])
def test_guard_warns_once_of_momentum(momentum: float, warnings: int) -> None:
    """On rank zero, at the first event at which the guard acts; without momentum never."""
    outputs = [rank.output for rank in run_ranks(diverge, world_size=2, momentum=momentum)]
    assert [output.count("Replicas drift apart while") for output in outputs] == [warnings, 0]
