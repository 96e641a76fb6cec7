"""Callbacks that touch weights, and ways to optimize them."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import callbacks as callbacks_of_lightning
from lightning.pytorch.callbacks import (
    BaseFinetuning,
    BatchSizeFinder,
    GradientAccumulationScheduler,
    LearningRateFinder,
    SpikeDetection,
    StochasticWeightAveraging,
)
from lightning.pytorch.demos.boring_classes import BoringModel

from tests.features.bench import Bench, Plain, Recipe, outcome_of, taken_into
from tests.ranks import Recorder, TwoOptimizers

RECIPES: dict[str, Recipe] = {}
recipe = taken_into(RECIPES)


# Callbacks that touch weights


@recipe
def stochastic_weight_averaging(bench: Bench) -> dict[str, Any]:
    average = StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=1, annealing_epochs=1)
    return bench.fit(Plain(bench.delays_ms), max_epochs=3, callbacks=[average])


@recipe
def stochastic_weight_averaging_of_batch_norm(bench: Bench) -> dict[str, Any]:
    return bench.fit(max_epochs=3, callbacks=[StochasticWeightAveraging(swa_lrs=0.01)])


@recipe
def weight_averaging(bench: Bench) -> dict[str, Any]:
    average = callbacks_of_lightning.EMAWeightAveraging(decay=0.9)
    outcome = bench.fit(max_epochs=2, callbacks=[average])
    return {**outcome, "updates": int(average._average_model.n_averaged)}


class Unfreezes(BaseFinetuning):
    def freeze_before_training(self, pl_module: Any) -> None:
        self.freeze(pl_module.layers[0])

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: Any) -> None:
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.layers[0], optimizer, lr=0.01)


class TrainsLast(Recorder):
    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW((p for p in self.parameters() if p.requires_grad), lr=0.01)


@recipe
def base_finetuning(bench: Bench) -> dict[str, Any]:
    return bench.fit(TrainsLast(bench.delays_ms), max_epochs=3, callbacks=[Unfreezes()])


@recipe
def spike_detection(bench: Bench) -> dict[str, Any]:
    return bench.fit(callbacks=[SpikeDetection()])


@recipe
def batch_size_finder(bench: Bench) -> dict[str, Any]:
    return bench.fit(callbacks=[BatchSizeFinder()])


@recipe
def learning_rate_finder(bench: Bench) -> dict[str, Any]:
    return bench.fit(callbacks=[LearningRateFinder()])


# Optimization


@recipe
def accumulate_grad_batches(bench: Bench) -> dict[str, Any]:
    return bench.fit(accumulate_grad_batches=4)


@recipe
def gradient_accumulation_scheduler(bench: Bench) -> dict[str, Any]:
    schedule = GradientAccumulationScheduler(scheduling={0: 1, 1: 4})
    return bench.fit(max_epochs=2, callbacks=[schedule])


@recipe
def gradient_clip_norm(bench: Bench) -> dict[str, Any]:
    return bench.fit(gradient_clip_val=0.01)


@recipe
def gradient_clip_value(bench: Bench) -> dict[str, Any]:
    return bench.fit(gradient_clip_val=0.01, gradient_clip_algorithm="value")


@recipe
def precision_bf16_mixed(bench: Bench) -> dict[str, Any]:
    return bench.fit(precision="bf16-mixed")


@recipe
def precision_64(bench: Bench) -> dict[str, Any]:
    return bench.fit(precision="64-true")


@recipe
def manual_optimization(bench: Bench) -> dict[str, Any]:
    return bench.fit(TwoOptimizers(bench.delays_ms))


class OddParameters(Recorder):
    """Has an unused parameter, one used twice, and buffers of many types."""

    def __init__(self, delays_ms: Any) -> None:
        super().__init__(delays_ms)
        self.unused = torch.nn.Linear(3, 3)
        self.again = self.layers[3]
        for dtype in (torch.bool, torch.uint8, torch.int32, torch.half, torch.bfloat16):
            self.register_buffer(f"of_{str(dtype)[6:]}", torch.ones(2, dtype=dtype))
        self.register_buffer("wide", torch.ones(2, dtype=torch.float64))
        self.register_buffer("empty", torch.empty(0))


@recipe
def odd_parameters(bench: Bench) -> dict[str, Any]:
    return bench.fit(OddParameters(bench.delays_ms), max_epochs=2)


@recipe
def compiled_module(bench: Bench) -> dict[str, Any]:
    model, trainer = BoringModel(), bench.trainer(max_epochs=2)
    trainer.fit(torch.compile(model, backend="eager"))
    return outcome_of(trainer, model)
