"""Where batches come from, evaluation, and the models that Lightning ships."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.demos.boring_classes import (
    BoringDataModule,
    BoringModel,
    ManualOptimBoringModel,
)
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, Sampler

from tests.features.bench import SIZE, Bench, Plain, Recipe, outcome_of, taken_into
from tests.ranks import Numbered, Recorder, make_loader

RECIPES: dict[str, Recipe] = {}
recipe = taken_into(RECIPES)


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
