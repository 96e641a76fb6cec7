"""Ranks whose parameters are spoiled, on a real run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from lightning_elche import AveragingEvent, ElCheStrategy
from lightning_elche.testing import run_ranks
from tests.ranks import fit, weights

pytestmark = pytest.mark.slow


class Spoils(Callback):
    """Spoils the parameters of rank 1 in its third step, and leaves that to the strategy."""

    def __init__(self) -> None:
        self.reports: list[Any] = []

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        if trainer.global_rank == 1 and trainer.fit_loop.epoch_loop.batch_idx == 2:
            for parameter in module.parameters():
                parameter.data.fill_(torch.nan)
            for buffer in module.buffers():
                buffer.zero_()
            trainer.strategy.sit_out()

    def on_average_end(self, event: AveragingEvent) -> None:
        self.reports.append(event.reports)


class Forgets(Callback):
    """Takes the first two batches of rank 1 back while the second is under way."""

    def __init__(self) -> None:
        self.reports: list[Any] = []

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_rank == 1 and trainer.fit_loop.epoch_loop.batch_idx == 1:
            trainer.strategy.forget(2)

    def on_average_end(self, event: AveragingEvent) -> None:
        self.reports.append(event.reports)


def train(callback: type[Any], backend: str) -> tuple[dict[str, torch.Tensor], Any]:
    own = callback()
    strategy = ElCheStrategy(backend=backend, timeout_s=30.0)  # type: ignore[arg-type]
    _, model = fit(2, size=160, delays_ms=(1.0, 3.0), strategy=strategy, callbacks=[own])
    return weights(model), own.reports


@pytest.mark.parametrize("backend", ["device", "cpu"])
def test_spoiled_rank_sits_out_and_is_healed_by_the_others(backend: str) -> None:
    """It adopts their average, so that nothing that is no number is left on any rank."""
    ranks = run_ranks(train, world_size=2, callback=Spoils, backend=backend)
    states, reports = zip(*(rank.value for rank in ranks), strict=True)
    assert all(torch.isfinite(value).all() for state in states for value in state.values())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    sat_out = [by_rank[1].weight for by_rank in reports[0] if by_rank[1].sits_out]
    assert sat_out == [0.0]


def test_batches_that_are_taken_back_do_not_weigh() -> None:
    """They count as trained, and the epoch goes on."""
    ranks = run_ranks(train, world_size=2, callback=Forgets, backend="device")
    first, *others = ranks[0].value[1]
    assert first[1].samples - first[1].weight == 8.0
    assert all(report.samples == report.weight for reports in others for report in reports)
