"""Tests of measuring one rank alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from solo_speed import SoloMeter


def test_the_speed_is_that_after_the_warm_up() -> None:
    """The first batches are slow and do not count; training ends when the time is over."""
    clock = [0.0]
    meter = SoloMeter(20.0, clock=lambda: clock[0])
    trainer: Any = SimpleNamespace(should_stop=False)
    module: Any = None
    meter.on_train_start(trainer, module)
    batch = (torch.zeros(8, 2),)
    for duration in [5.0] + [1.0] * 17:
        assert not trainer.should_stop
        clock[0] += duration
        meter.on_train_batch_end(trainer, module, None, batch, 0)
    assert trainer.should_stop
    assert meter.samples_per_s == 8.0
