"""Collectives inside a step are refused or answered locally; aligned ones are exact."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    LearningRateFinder,
    SpikeDetection,
    StochasticWeightAveraging,
)
from torchmetrics.classification import BinaryAccuracy

from lightning_elche import ElCheStrategy
from lightning_elche.exceptions import MisalignedCollective
from lightning_elche.loops.alignment import Alignment, Phase
from lightning_elche.loops.run_config import RunConfig
from lightning_elche.strategies.refusals import refuse_unsupported
from lightning_elche.testing import run_ranks
from tests.ranks import Recorder, fit, make_trainer


class LogsInStep(Recorder):
    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = super().training_step(batch, batch_idx)
        self.log("rank", float(self.global_rank), on_step=True, on_epoch=False, sync_dist=True)
        return loss


def log_in_step(misaligned: str) -> float:
    strategy = ElCheStrategy(misaligned=misaligned, timeout_s=30.0)  # type: ignore[arg-type]
    trainer, _ = fit(2, model=LogsInStep(), strategy=strategy)
    return float(trainer.callback_metrics["rank"])


@pytest.mark.slow
def test_synchronised_step_log_is_refused_by_default() -> None:
    """`sync_dist` with `on_step` raises MisalignedCollective that says what to do."""
    ranks = run_ranks(log_in_step, world_size=2, check=False, misaligned="raise")
    assert any("MisalignedCollective: `Strategy.reduce`" in rank.output for rank in ranks)
    assert any("sync_dist=True, on_epoch=True" in rank.output for rank in ranks)


@pytest.mark.slow
def test_synchronised_step_log_is_local_on_request() -> None:
    """With `misaligned="local"` each rank logs its own value."""
    ranks = run_ranks(log_in_step, world_size=2, misaligned="local")
    assert [rank.value for rank in ranks] == [0.0, 1.0]


class LogsOnes(Recorder):
    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = super().training_step(batch, batch_idx)
        self.log("one", 1.0, on_step=False, on_epoch=True, sync_dist=True)
        return loss


def log_ones() -> float:
    trainer, _ = fit(2, size=44, model=LogsOnes((1.0, 8.0)))
    return float(trainer.callback_metrics["one"])


@pytest.mark.slow
def test_epoch_mean_is_exact_with_uneven_batch_counts() -> None:
    """The mean of ones is one, however unequal the ranks' numbers of batches are."""
    assert [rank.value for rank in run_ranks(log_ones, world_size=2)] == [1.0, 1.0]


def test_collective_in_a_step_raises_and_names_the_call() -> None:
    """The error carries the call."""
    alignment = Alignment("raise")
    alignment.phase = Phase.STEP
    with pytest.raises(MisalignedCollective, match=r"Strategy\.barrier") as caught:
        alignment.allows("Strategy.barrier")
    assert caught.value.call == "Strategy.barrier"


def test_collective_without_local_answer_raises_even_if_local_is_wanted() -> None:
    """A barrier cannot be answered by one rank."""
    alignment = Alignment("local")
    alignment.phase = Phase.STEP
    with pytest.raises(MisalignedCollective):
        alignment.allows("Strategy.barrier")


def test_collective_after_a_failure_is_skipped() -> None:
    """Clean-up after a failure must not wait for ranks that are elsewhere."""
    alignment = Alignment("raise")
    alignment.phase = Phase.FAILED
    assert not alignment.allows("Strategy.barrier")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"misaligned": "ignore"}, '`misaligned` must be "raise" or "local", got \'ignore\''),
        ({"timeout_s": 0.0}, "`timeout_s` must be a positive number, got 0.0"),
        ({"timeout_s": float("inf")}, "`timeout_s` must be a positive number"),
    ],
)
def test_wrong_option_is_refused_with_its_name(options: dict[str, Any], message: str) -> None:
    """The message names the option, what it should be and what it was."""
    with pytest.raises(ValueError, match=message):
        ElCheStrategy(**options)


@pytest.mark.parametrize(
    "callback",
    [
        BatchSizeFinder(),
        LearningRateFinder(),
        SpikeDetection(),
        StochasticWeightAveraging(0.1),
    ],
    ids=lambda callback: type(callback).__name__,
)
def test_callback_that_needs_all_ranks_at_every_step_is_refused(callback: Any) -> None:
    """The message names the callback's class."""
    trainer = make_trainer(1, callbacks=[callback], enable_checkpointing=True)
    with pytest.raises(ValueError, match=type(callback).__name__):
        refuse_unsupported(trainer, Recorder(), RunConfig())


@pytest.mark.parametrize("options", [{"backend": "cpu"}, {"group": "node"}])
def test_weight_average_where_parameters_differ_is_refused(options: dict[str, Any]) -> None:
    """It would be another one on each rank."""
    callbacks = pytest.importorskip("lightning.pytorch.callbacks.weight_averaging")
    trainer = make_trainer(1, callbacks=[callbacks.EMAWeightAveraging()])
    refuse_unsupported(trainer, Recorder(), RunConfig())
    with pytest.raises(ValueError, match="EMAWeightAveraging"):
        refuse_unsupported(trainer, Recorder(), RunConfig(**options))


@pytest.mark.parametrize(
    ("child", "message"),
    [
        (torch.nn.SyncBatchNorm(8), "`child` must not be SyncBatchNorm"),
        (BinaryAccuracy(dist_sync_on_step=True), "`child` must be a metric with"),
    ],
)
def test_module_that_needs_all_ranks_at_every_step_is_refused(
    child: torch.nn.Module, message: str
) -> None:
    """The message names the module."""
    model = Recorder()
    model.child = child
    with pytest.raises(ValueError, match=message):
        refuse_unsupported(make_trainer(1), model, RunConfig())
