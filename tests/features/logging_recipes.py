"""What is logged, and by what."""

from __future__ import annotations

import os
from typing import Any

import torch
import torchmetrics
from lightning.pytorch.callbacks import DeviceStatsMonitor, LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger

from tests.features.bench import Bench, Recipe, taken_into
from tests.ranks import Recorder

RECIPES: dict[str, Recipe] = {}
recipe = taken_into(RECIPES)


class LogsInBranches(Recorder):
    """Logs a key in some batches only, which one rank may never get."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = super().training_step(batch, batch_idx)
        self.log("own_loss", loss, on_step=True, on_epoch=False)
        if self.global_rank == 0:
            self.log("seldom", torch.tensor(3.0), on_step=False, on_epoch=True, sync_dist=True)
        self.log("ones", 1.0, on_step=False, on_epoch=True, sync_dist=True)
        return loss


@recipe
def log_in_branches(bench: Bench) -> dict[str, Any]:
    outcome = bench.fit(LogsInBranches(bench.delays_ms), max_epochs=2)
    outcome["metrics"].pop("own_loss")
    return outcome


class LogsStepsOfAll(Recorder):
    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = super().training_step(batch, batch_idx)
        self.log("loss_of_all", loss, on_step=True, sync_dist=True)
        return loss


@recipe
def log_on_step_over_ranks(bench: Bench) -> dict[str, Any]:
    return bench.fit(LogsStepsOfAll(bench.delays_ms))


class Metrics(Recorder):
    """Logs metric objects and a collection, in training and validation."""

    def __init__(self, delays_ms: Any) -> None:
        super().__init__(delays_ms)
        self.mean_id = torchmetrics.MeanMetric()
        kinds = {"max_id": torchmetrics.MaxMetric(), "sum_id": torchmetrics.SumMetric()}
        self.of_train = torchmetrics.MetricCollection(kinds)
        self.of_val = torchmetrics.MeanMetric()

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.mean_id(batch[1].float())
        self.log("mean_id", self.mean_id, on_step=True, on_epoch=True)
        self.of_train.update(batch[1].float())
        self.log_dict(self.of_train, on_step=False, on_epoch=True)
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.of_val.update(batch[1].float())
        self.log("val_id", self.of_val)
        super().validation_step(batch, batch_idx)


@recipe
def metrics(bench: Bench) -> dict[str, Any]:
    outcome = bench.fit(Metrics(bench.delays_ms))
    outcome["metrics"].pop("mean_id_step")
    return outcome


@recipe
def csv_logger(bench: Bench) -> dict[str, Any]:
    monitors = [LearningRateMonitor("step"), DeviceStatsMonitor()]
    logger = CSVLogger(bench.folder, name="csv", version="0")
    outcome = bench.fit(logger=logger, callbacks=monitors, log_every_n_steps=5, max_epochs=2)
    text = (bench.folder / "csv" / "0" / "metrics.csv").read_text()
    return {**outcome, "csv": text if int(os.environ["RANK"]) == 0 else ""}


@recipe
def tensorboard_logger(bench: Bench) -> dict[str, Any]:
    from lightning.pytorch.loggers import TensorBoardLogger

    logger = TensorBoardLogger(bench.folder, name="tb", version="0")
    return bench.fit(logger=logger, log_every_n_steps=5)
