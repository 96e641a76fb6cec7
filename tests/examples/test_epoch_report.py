"""Tests of the line per epoch."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from epoch_report import Epoch, EpochReport, bits, epoch_line


def trainer_like(**attributes: object) -> Any:
    """Return what the callback reads of a Trainer with two ranks under a stock strategy."""
    defaults = {
        "callback_metrics": {"val_loss": torch.tensor(2.0)},
        "is_global_zero": True,
        "max_epochs": 3,
        "progress_bar_callback": None,
        "strategy": None,
        "world_size": 2,
    }
    return SimpleNamespace(**(defaults | attributes))


def run_epoch(report: EpochReport, trainer: Any, clock: list[float]) -> None:
    """Train for 10 s, validate for 5 s, and take 1 s more to the end of the epoch."""
    module: Any = None
    report.on_train_epoch_start(trainer, module)
    clock[0] += 10.0
    report.on_validation_start(trainer, module)
    clock[0] += 5.0
    report.on_validation_end(trainer, module)
    clock[0] += 1.0
    report.on_train_epoch_end(trainer, module)


def test_validation_does_not_count_as_training() -> None:
    """Samples per second are those of the training alone."""
    clock = [100.0]
    report = EpochReport(220, clock=lambda: clock[0])
    for _ in range(2):
        run_epoch(report, trainer_like(is_global_zero=False), clock)
    assert [epoch.train_s for epoch in report.epochs] == [11.0, 11.0]
    assert report.samples_per_s == 20.0


def test_only_rank_zero_prints(capsys: pytest.CaptureFixture[str]) -> None:
    """The terminal shows one line per epoch."""
    for is_global_zero in (True, False):
        clock = [0.0]
        report = EpochReport(220, clock=lambda clock=clock: clock[0])  # type: ignore[misc]
        run_epoch(report, trainer_like(is_global_zero=is_global_zero), clock)
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_shares_under_a_stock_strategy_are_equal() -> None:
    """DDP deals every rank the same number of samples."""
    clock = [0.0]
    report = EpochReport(220, clock=lambda: clock[0])
    run_epoch(report, trainer_like(is_global_zero=False), clock)
    assert report.share == (0.5, 0.5)


def test_the_line_of_an_epoch() -> None:
    """Loss, speed, shares and time are in one line."""
    epoch = Epoch(val_loss=2.0, samples=24_000, train_s=20.0, share=(0.8, 0.2))
    assert epoch_line(epoch, number=2, total=3) == (
        "  epoch 2/3   val loss 2.000 (2.89 bits/char)   1,200 samples/s   shares 80% / 20%   20 s"
    )


def test_a_choice_of_two_is_one_bit() -> None:
    """The natural logarithm of two is one bit."""
    assert bits(0.6931471805599453) == 1.0
