"""What a user of Lightning may ask for, one recipe each; all run in one set of ranks.

A recipe gets a `Bench`, trains, and returns what the tests compare between the ranks.
"""

from __future__ import annotations

import hashlib
import os
import random
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torchmetrics
from lightning.pytorch import Callback, LightningDataModule, Trainer, seed_everything
from lightning.pytorch import callbacks as callbacks_of_lightning
from lightning.pytorch.callbacks import (
    BaseFinetuning,
    BatchSizeFinder,
    DeviceStatsMonitor,
    EarlyStopping,
    GradientAccumulationScheduler,
    LearningRateFinder,
    LearningRateMonitor,
    ModelCheckpoint,
    SpikeDetection,
    StochasticWeightAveraging,
    Timer,
)
from lightning.pytorch.demos.boring_classes import (
    BoringDataModule,
    BoringModel,
    ManualOptimBoringModel,
)
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, Sampler

from lightning_elche import ElCheStrategy
from tests.ranks import Numbered, Recorder, TwoOptimizers, make_loader, make_trainer

SIZE = 160  # samples of an epoch, 40 batches
RECIPES: dict[str, Callable[[Bench], dict[str, Any]]] = {}


@dataclass
class Bench:
    """Where a recipe runs.

    Attributes:
        world_size: Number of ranks.
        delays_ms: What a step of each rank takes.
        folder: For the files of the recipe, common to all ranks.
    """

    world_size: int
    delays_ms: tuple[float, ...]
    folder: Path

    def trainer(self, **options: Any) -> Trainer:
        strategy = ElCheStrategy(timeout_s=20.0)
        defaults = {"strategy": strategy, "default_root_dir": self.folder}
        return make_trainer(self.world_size, **{**defaults, **options})

    def fit(self, model: Any = None, loader: Any = None, **options: Any) -> dict[str, Any]:
        """Train, and return what must be equal on all ranks and what each rank has seen."""
        model = model if model is not None else Recorder(self.delays_ms)
        trainer = self.trainer(**options)
        val = DataLoader(Numbered(16), batch_size=4)
        trainer.fit(model, loader if loader is not None else make_loader(SIZE), val)
        return outcome_of(trainer, model)


def outcome_of(trainer: Trainer, model: Any) -> dict[str, Any]:
    return {
        "step": trainer.global_step,
        "epoch": trainer.current_epoch,
        "weights": digest_of(model),
        "metrics": {key: float(value) for key, value in trainer.callback_metrics.items()},
        "ids": getattr(model, "ids", {}),
    }


def digest_of(model: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for value in model.state_dict().values():
        digest.update(value.detach().to(torch.float64).numpy().tobytes())
    return digest.hexdigest()


def recipe(function: Callable[[Bench], dict[str, Any]]) -> Callable[[Bench], dict[str, Any]]:
    RECIPES[function.__name__] = function
    return function


def run_recipes(folder: str, names: list[str], seed: int) -> dict[str, dict[str, Any]]:
    """Run recipes one after the other, on every rank; an error is the outcome of its recipe."""
    warnings.simplefilter("ignore")
    world_size, rank = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
    delays = random.Random(seed)
    outcomes = {}
    for name in names:
        slow = [delays.uniform(1.0, 6.0) for _ in range(world_size)] if seed else [1.0, 4.0, 2.0]
        seed_everything(7, verbose=False)
        bench = Bench(world_size, tuple(slow), Path(folder) / name)
        print(f"--- {name} on rank {rank}", flush=True)
        try:
            outcomes[name] = RECIPES[name](bench)
        except Exception as err:
            outcomes[name] = {"error": f"{type(err).__name__}: {err}"}
    return outcomes


# Checkpoints


def files_in(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.glob("*.ckpt"))


def with_checkpoints(bench: Bench, **options: Any) -> dict[str, Any]:
    more = {key: options.pop(key) for key in ("max_epochs", "val_check_interval") if key in options}
    saver = ModelCheckpoint(bench.folder, **options)
    outcome = bench.fit(callbacks=[saver], enable_checkpointing=True, **more)
    return {**outcome, "files": files_in(bench.folder), "best": saver.best_model_path}


@recipe
def checkpoint_every_n_train_steps(bench: Bench) -> dict[str, Any]:
    options = {"every_n_train_steps": 10, "save_top_k": -1, "filename": "{step}"}
    return with_checkpoints(bench, **options)


@recipe
def checkpoint_train_time_interval(bench: Bench) -> dict[str, Any]:
    interval = timedelta(milliseconds=5)
    return with_checkpoints(
        bench, train_time_interval=interval, save_top_k=-1, filename="{step}", max_epochs=2
    )


@recipe
def checkpoint_every_n_epochs(bench: Bench) -> dict[str, Any]:
    options = {"every_n_epochs": 2, "save_top_k": -1, "filename": "{epoch}"}
    return with_checkpoints(bench, max_epochs=4, **options)


@recipe
def checkpoint_monitor(bench: Bench) -> dict[str, Any]:
    options = {"monitor": "val_loss", "save_top_k": 2, "save_last": True, "filename": "{step}"}
    return with_checkpoints(bench, max_epochs=4, **options)


@recipe
def checkpoint_monitor_at_steps(bench: Bench) -> dict[str, Any]:
    options = {"monitor": "val_loss", "every_n_train_steps": 15, "filename": "{step}"}
    return with_checkpoints(bench, max_epochs=2, val_check_interval=0.5, **options)


class Breaks(Recorder):
    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        if self.global_rank == 1 and batch_idx == 3:
            raise ArithmeticError("on purpose")
        return super().training_step(batch, batch_idx)


@recipe
def checkpoint_save_on_exception(bench: Bench) -> dict[str, Any]:
    saver = ModelCheckpoint(bench.folder, save_on_exception=True)
    try:
        bench.fit(Breaks(bench.delays_ms), callbacks=[saver], enable_checkpointing=True)
    except Exception as err:
        return {"error": f"{type(err).__name__}: {err}", "files": files_in(bench.folder)}
    return {}


# Limits and stops


@recipe
def early_stopping(bench: Bench) -> dict[str, Any]:
    stop = EarlyStopping("val_loss", patience=1, min_delta=1e9)
    return bench.fit(max_epochs=9, callbacks=[stop])


@recipe
def early_stopping_in_epoch(bench: Bench) -> dict[str, Any]:
    stop = EarlyStopping("val_loss", patience=1, min_delta=1e9)
    return bench.fit(max_epochs=9, callbacks=[stop], val_check_interval=10)


class AsksToStop(Callback):
    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        trainer.should_stop = trainer.global_rank == 1


@recipe
def should_stop_on_one_rank(bench: Bench) -> dict[str, Any]:
    return bench.fit(max_epochs=9, callbacks=[AsksToStop()])


@recipe
def min_epochs(bench: Bench) -> dict[str, Any]:
    return bench.fit(max_epochs=9, min_epochs=3, callbacks=[AsksToStop()])


@recipe
def min_steps(bench: Bench) -> dict[str, Any]:
    return bench.fit(max_epochs=9, min_steps=100, callbacks=[AsksToStop()])


@recipe
def max_steps(bench: Bench) -> dict[str, Any]:
    return bench.fit(max_epochs=-1, max_steps=100)


@recipe
def max_time(bench: Bench) -> dict[str, Any]:
    return bench.fit(max_epochs=-1, max_time=timedelta(seconds=0.5))


@recipe
def timer(bench: Bench) -> dict[str, Any]:
    watch = Timer(duration=timedelta(seconds=0.5))
    outcome = bench.fit(max_epochs=-1, callbacks=[watch])
    return {**outcome, "hooks": "on_train_batch_end" in vars(watch)}


@recipe
def overfit_batches_int(bench: Bench) -> dict[str, Any]:
    return bench.fit(max_epochs=2, overfit_batches=5)


@recipe
def overfit_batches_float(bench: Bench) -> dict[str, Any]:
    return bench.fit(max_epochs=2, overfit_batches=0.5)


@recipe
def fast_dev_run(bench: Bench) -> dict[str, Any]:
    return bench.fit(fast_dev_run=True)


@recipe
def fast_dev_run_of_several_batches(bench: Bench) -> dict[str, Any]:
    return bench.fit(fast_dev_run=4)


@recipe
def limit_train_batches_int(bench: Bench) -> dict[str, Any]:
    return bench.fit(limit_train_batches=6, limit_val_batches=1)


@recipe
def limit_train_batches_float(bench: Bench) -> dict[str, Any]:
    return bench.fit(limit_train_batches=0.5, limit_val_batches=0.5)


# Validation


class CountsValidations(Callback):
    def __init__(self) -> None:
        self.at: list[int] = []

    def on_validation_end(self, trainer: Any, *_: Any) -> None:
        self.at.append(trainer.global_step)


def with_validations(bench: Bench, **options: Any) -> dict[str, Any]:
    counter = CountsValidations()
    outcome = bench.fit(callbacks=[counter], **options)
    return {**outcome, "at": counter.at}


@recipe
def val_check_interval_int(bench: Bench) -> dict[str, Any]:
    return with_validations(bench, val_check_interval=10)


@recipe
def val_check_interval_float(bench: Bench) -> dict[str, Any]:
    return with_validations(bench, val_check_interval=0.25)


@recipe
def val_check_interval_across_epochs(bench: Bench) -> dict[str, Any]:
    return with_validations(
        bench, max_epochs=3, val_check_interval=30, check_val_every_n_epoch=None
    )


@recipe
def val_check_interval_time(bench: Bench) -> dict[str, Any]:
    interval = timedelta(milliseconds=20)
    return with_validations(bench, max_epochs=3, val_check_interval=interval)


@recipe
def check_val_every_n_epoch(bench: Bench) -> dict[str, Any]:
    return with_validations(bench, max_epochs=4, check_val_every_n_epoch=2)


@recipe
def sanity_check(bench: Bench) -> dict[str, Any]:
    return with_validations(bench, num_sanity_val_steps=2)


# Logging


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


# Callbacks that touch weights


class Plain(Recorder):
    """Without BatchNorm."""

    def __init__(self, delays_ms: Any) -> None:
        super().__init__(delays_ms)
        self.layers[1] = torch.nn.Identity()


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


# Data


@recipe
def several_loaders(bench: Bench) -> dict[str, Any]:
    return bench.fit(loader={"a": make_loader(40), "b": make_loader(40)})


class PullsBatches(Recorder):
    def training_step(self, dataloader_iter: Any) -> torch.Tensor:
        batch, batch_idx, _ = next(dataloader_iter)
        return super().training_step(batch, batch_idx)


@recipe
def dataloader_iter(bench: Bench) -> dict[str, Any]:
    return bench.fit(PullsBatches(bench.delays_ms))


class Stream(IterableDataset[Any]):
    """Another part of the samples on each rank, of different lengths."""

    def __iter__(self) -> Iterator[Any]:
        rank, world_size = dist.get_rank(), dist.get_world_size()
        data = Numbered(SIZE)
        return (data[index] for index in range(rank, SIZE, world_size))


@recipe
def iterable_dataset(bench: Bench) -> dict[str, Any]:
    loader = DataLoader(Stream(), batch_size=4)
    return bench.fit(Plain(bench.delays_ms), loader, max_epochs=2)


class Reversed(Sampler[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(SIZE - 1, -1, -1))

    def __len__(self) -> int:
        return SIZE


@recipe
def custom_sampler(bench: Bench) -> dict[str, Any]:
    return bench.fit(loader=DataLoader(Numbered(SIZE), batch_size=4, sampler=Reversed()))


class Bucketed(BatchSampler):
    """Batches of two sizes."""

    def __iter__(self) -> Iterator[list[int]]:
        for batch in super().__iter__():
            yield batch[:1]
            yield batch[1:]

    def __len__(self) -> int:
        return 2 * super().__len__()


@recipe
def custom_batch_sampler(bench: Bench) -> dict[str, Any]:
    sampler = Bucketed(Reversed(), batch_size=4, drop_last=False)
    loader = DataLoader(Numbered(SIZE), batch_sampler=sampler)
    return bench.fit(Plain(bench.delays_ms), loader)


class Data(LightningDataModule):
    def train_dataloader(self) -> Any:
        return make_loader(SIZE)

    def val_dataloader(self) -> Any:
        return DataLoader(Numbered(16), batch_size=4)

    test_dataloader = predict_dataloader = val_dataloader


@recipe
def datamodule(bench: Bench) -> dict[str, Any]:
    model, trainer = Recorder(bench.delays_ms), bench.trainer(max_epochs=2)
    trainer.fit(model, datamodule=Data())
    return outcome_of(trainer, model)


@recipe
def reload_dataloaders(bench: Bench) -> dict[str, Any]:
    model = Recorder(bench.delays_ms)
    trainer = bench.trainer(max_epochs=3, reload_dataloaders_every_n_epochs=1)
    trainer.fit(model, datamodule=Data())
    return outcome_of(trainer, model)


@recipe
def workers(bench: Bench) -> dict[str, Any]:
    return bench.fit(loader=make_loader(SIZE, num_workers=1), max_epochs=2)


@recipe
def persistent_workers(bench: Bench) -> dict[str, Any]:
    loader = make_loader(SIZE, num_workers=1, persistent_workers=True)
    return bench.fit(loader=loader, max_epochs=2)


# Other entry points, and the models that Lightning ships


class Evaluates(Recorder):
    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test_ids", batch[1].float().mean(), sync_dist=True)

    def predict_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return batch[1]


def evaluate(trainer: Trainer, model: Any) -> dict[str, Any]:
    data = Data()
    predicted = trainer.predict(model, datamodule=data)
    return {
        "val": trainer.validate(model, datamodule=data, verbose=False),
        "test": trainer.test(model, datamodule=data, verbose=False),
        "ids": {0: torch.cat(predicted).tolist()},
    }


@recipe
def evaluate_alone(bench: Bench) -> dict[str, Any]:
    return evaluate(bench.trainer(), Evaluates(bench.delays_ms))


@recipe
def evaluate_after_fit(bench: Bench) -> dict[str, Any]:
    model, trainer = Evaluates(bench.delays_ms), bench.trainer()
    trainer.fit(model, datamodule=Data())
    return {**outcome_of(trainer, model), **evaluate(trainer, model)}


@recipe
def boring_model(bench: Bench) -> dict[str, Any]:
    model, trainer = BoringModel(), bench.trainer(max_epochs=2)
    trainer.fit(model, datamodule=BoringDataModule())
    return outcome_of(trainer, model)


@recipe
def manual_boring_model(bench: Bench) -> dict[str, Any]:
    model, trainer = ManualOptimBoringModel(), bench.trainer(max_epochs=2)
    trainer.fit(model)
    return outcome_of(trainer, model)
