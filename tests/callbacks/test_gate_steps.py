"""A training contract on one device: what is a step, and what its record says."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision

from tests.callbacks.gated import Scripted, fit_gated, lines_of
from tests.ranks import TwoOptimizers


def test_speed_and_time_of_a_step_belong_together(tmp_path: Path) -> None:
    """Their product is the number of tokens."""
    fit_gated(tmp_path)
    for line in lines_of(tmp_path / "train.jsonl"):
        assert line["tokens_per_sec"] * line["wall_ms"] / 1000.0 == pytest.approx(4.0, rel=1e-5)


def seeded(**options: Any) -> Scripted:
    torch.manual_seed(3)
    return Scripted(**options)


def test_accumulated_batches_are_one_step(tmp_path: Path) -> None:
    """Ten batches make steps of four, four and two, with the mean loss of each."""
    fit_gated(tmp_path / "a", accumulate_grad_batches=4, model=seeded(lr=0.0))
    fit_gated(tmp_path / "b", model=seeded(lr=0.0))
    losses = [line["train_loss"] for line in lines_of(tmp_path / "b/train.jsonl")]
    steps = lines_of(tmp_path / "a/train.jsonl")
    expected = [sum(part) / len(part) for part in (losses[:4], losses[4:8], losses[8:])]
    assert [step["train_loss"] for step in steps] == pytest.approx(expected, rel=1e-5)
    tokens = [round(step["tokens_per_sec"] * step["wall_ms"] / 1000.0) for step in steps]
    assert tokens == [16, 16, 8]


def test_several_optimizers_of_a_batch_are_one_step(tmp_path: Path) -> None:
    """With the norm of all gradients."""
    model = TwoOptimizers((0.0,))
    fit_gated(tmp_path, model=model, gate={"overrides": {"lr_max": 0.01}})
    assert len(lines_of(tmp_path / "train.jsonl")) == 10


class Counting(Scripted):
    """Notes how many steps are in the log when each batch begins."""

    def __init__(self, log: Path) -> None:
        super().__init__()
        self.log_path = log
        self.logged: list[int] = []

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.logged.append(self.log_path.read_bytes().count(b"\n"))


def test_killed_process_loses_at_most_a_portion(tmp_path: Path) -> None:
    """What is not in the file yet is less than `flush_every` steps."""
    model = Counting(tmp_path / "train.jsonl")
    fit_gated(tmp_path, model=model, gate={"flush_every": 4, "flush_ms": 1e9})
    assert model.logged == [0, 0, 0, 0, 4, 4, 4, 4, 8, 8]


class Scheduled(Scripted):
    """Halves its learning rate after every step."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=2.0**-15)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def test_learning_rate_is_the_one_that_the_step_has_used(tmp_path: Path) -> None:
    """Not that of the next one, which the schedule has set by its end."""
    fit_gated(tmp_path, model=Scheduled(), size=12)
    rates = [line["lr"] for line in lines_of(tmp_path / "train.jsonl")]
    assert rates == pytest.approx([2.0**-15, 2.0**-16, 2.0**-17])


def test_clipping_here_is_that_of_lightning(tmp_path: Path) -> None:
    """To the last bit, and the norm in the log is that before it."""
    _, here = fit_gated(tmp_path / "a", model=seeded(lr=0.1), gate={"clip_norm": 0.5})
    _, there = fit_gated(tmp_path / "b", model=seeded(lr=0.1), gradient_clip_val=0.5)
    for own, other in zip(here.parameters(), there.parameters(), strict=True):
        assert torch.equal(own, other)
    assert max(line["grad_norm"] for line in lines_of(tmp_path / "a/train.jsonl")) > 0.5


class Overflows(Scripted):
    """The gradients of one step are too large for 16 bits."""

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        pass

    def on_after_backward(self) -> None:
        if self.global_step == 2 and not getattr(self, "has_overflown", False):
            self.has_overflown = True
            self.layers[0].weight.grad.fill_(math.inf)


def test_step_that_the_loss_scaler_skips_is_none(tmp_path: Path) -> None:
    """It leaves an event, and no gap in the log."""
    plugin = MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=8.0))
    fit_gated(tmp_path, model=Overflows(), plugins=[plugin])
    lines, events = lines_of(tmp_path / "train.jsonl"), lines_of(tmp_path / "events.jsonl")
    assert [line["step"] for line in lines] == list(range(9))
    assert [event["step"] for event in events if event["event"] == "SCALER_SKIP"] == [2]
