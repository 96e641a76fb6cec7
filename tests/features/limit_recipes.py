"""What ends a run, how much of the data it sees, and when it is validated."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, Timer

from tests.features.bench import Bench, Recipe, taken_into

RECIPES: dict[str, Recipe] = {}
recipe = taken_into(RECIPES)


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
