"""The names that Lightning keeps private, under names of our own.

The only file that imports them, or reads such an attribute of a Trainer or a callback;
`tests/loops/test_lightning_names.py` fails when one of them changes.
"""

from __future__ import annotations

import dataclasses
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import lightning.pytorch.callbacks
from lightning.pytorch.callbacks import ModelCheckpoint, Timer
from lightning.pytorch.loops.fetchers import _DataFetcher as DataFetcher
from lightning.pytorch.loops.fetchers import _DataLoaderIterDataFetcher as DataLoaderIterDataFetcher
from lightning.pytorch.loops.fit_loop import _FitLoop as FitLoop
from lightning.pytorch.loops.optimization.automatic import (
    _AutomaticOptimization as AutomaticOptimization,
)
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop as TrainingEpochLoop
from lightning.pytorch.trainer import call
from lightning.pytorch.trainer.connectors.logger_connector import result as logged

if TYPE_CHECKING:
    from lightning.pytorch import Callback, Trainer
    from lightning.pytorch.profilers import PyTorchProfiler
    from lightning.pytorch.utilities.types import LRSchedulerTypeUnion

__all__ = [
    "AutomaticOptimization",
    "DataFetcher",
    "DataLoaderIterDataFetcher",
    "FitLoop",
    "TrainingEpochLoop",
    "accumulates",
    "averages_weights",
    "can_stop_early",
    "epoch_of",
    "forget_module",
    "is_checkpoint_due",
    "is_validation_due",
    "keep_user_samplers",
    "leave_hooks",
    "log_nothing",
    "logged_over_ranks",
    "save_at_step",
    "saves_at_steps",
    "set_received_sigterm",
    "set_time_of_checkpoint",
    "step_schedule",
    "steps_between_checkpoints",
    "stops_at_steps",
    "trainer_of",
    "update_average",
]


def keep_user_samplers(trainer: Trainer) -> None:
    """Stop Lightning from replacing samplers; a single device needs no distributed one."""
    trainer._accelerator_connector.use_distributed_sampler = False


def set_received_sigterm(trainer: Trainer) -> None:
    """Make `trainer.received_sigterm` true."""
    trainer._signal_connector.received_sigterm = True


def epoch_of(trainer: Trainer) -> int:
    """Return the index of the epoch that is under way, or comes next."""
    progress: Any = trainer.fit_loop.epoch_progress.current
    return int(progress.processed)


def accumulates(trainer: Trainer) -> bool:
    """Return whether gradients of the present batch are kept, rather than stepped by."""
    return trainer.fit_loop._should_accumulate()


def leave_hooks(trainer: Trainer) -> None:
    """Let the Trainer, which knows in which hook it is, know that an error has left it."""
    module: Any = trainer.lightning_module
    module._current_fx_name = None


def can_stop_early(trainer: Trainer) -> bool:
    """Return whether `min_epochs` and `min_steps` are reached."""
    return trainer.fit_loop._can_stop_early


def step_schedule(trainer: Trainer, scheduler: LRSchedulerTypeUnion) -> None:
    """Step a learning-rate schedule by way of the module's hook, as the stock loop does."""
    call._call_lightning_module_hook(trainer, "lr_scheduler_step", scheduler, None)


def is_validation_due(trainer: Trainer, now: float) -> bool:
    """Return whether `val_check_interval` is a duration, as from Lightning 2.6 on, and is over."""
    interval = getattr(trainer, "_val_check_time_interval", None)
    last: float = getattr(trainer, "_last_val_time", now)
    return interval is not None and now - last >= interval


def saves_at_steps(callback: Callback) -> bool:
    """Return whether `callback` is a `ModelCheckpoint` that saves at steps or by the clock."""
    if not isinstance(callback, ModelCheckpoint):
        return False
    return callback._every_n_train_steps > 0 or callback._train_time_interval is not None


def steps_between_checkpoints(saver: ModelCheckpoint) -> int:
    """Return `every_n_train_steps`, 0 if it is not set."""
    return saver._every_n_train_steps


def is_checkpoint_due(saver: ModelCheckpoint, now: float) -> bool:
    """Return whether `train_time_interval` is set and over."""
    interval, last = saver._train_time_interval, saver._last_time_checked
    return interval is not None and last is not None and now - last >= interval.total_seconds()


def set_time_of_checkpoint(saver: ModelCheckpoint, now: float) -> None:
    """Start the next `train_time_interval`."""
    saver._last_time_checked = now


def save_at_step(trainer: Trainer, saver: ModelCheckpoint) -> None:
    """Do what `ModelCheckpoint.on_train_batch_end` does once it has found that a save is due."""
    if saver._should_skip_saving_checkpoint(trainer):
        return
    candidates = saver._monitor_candidates(trainer)
    if saver.monitor is not None and saver.monitor not in candidates:
        saver._defer_save_until_validation = True
        return
    saver._save_topk_checkpoint(trainer, candidates)
    saver._save_last_checkpoint(trainer, candidates)


def stops_at_steps(callback: Callback) -> bool:
    """Return whether `callback` is a `Timer` with a limit that it checks at every step."""
    if not isinstance(callback, Timer) or callback.time_remaining() is None:
        return False
    return callback._interval == "step"


def averages_weights(callback: Callback) -> bool:
    """Return whether `callback` is a `WeightAveraging`, which came with Lightning 2.6."""
    kind = getattr(lightning.pytorch.callbacks, "WeightAveraging", None)
    return kind is not None and isinstance(callback, kind)


def logged_over_ranks(trainer: Trainer) -> dict[str, dict[str, Any]]:
    """Return what was logged in this epoch and is reduced over ranks at its end.

    Returns:
        The arguments of `self.log` by key, in the order of the reductions.
    """
    results: Any = trainer.fit_loop._results
    return {
        key: {
            field.name: getattr(result.meta, field.name)
            for field in dataclasses.fields(result.meta)
            if field.name != "_sync"
        }
        for key, result in results.items()
        if _is_reduced(result)
    }


def log_nothing(trainer: Trainer, arguments: dict[str, dict[str, Any]]) -> None:
    """Let this rank take part in the reductions of all keys, in their order.

    Args:
        trainer: Has the results.
        arguments: As of `logged_over_ranks`, on any rank.
    """
    results: Any = trainer.fit_loop._results
    for key, fields in arguments.items():
        result = results.pop(key, None)
        if result is None or not _is_reduced(result):
            result = _empty_result(trainer, logged._Metadata(**fields))
        results[key] = result


def _is_reduced(result: Any) -> bool:  # noqa: ANN401  # a type that Lightning keeps private
    is_reduced = result.meta.sync.should or not result.is_tensor
    return result.meta.on_epoch and is_reduced and not result.has_reset


def _empty_result(trainer: Trainer, meta: Any) -> Any:  # noqa: ANN401
    meta.sync = logged._Sync(fn=trainer.strategy.reduce, _should=True)
    if meta.metric_attribute is None:
        return logged._ResultMetric(meta, is_tensor=True).to(trainer.strategy.root_device)
    result = logged._ResultMetric(meta, is_tensor=False)
    result.value = attrgetter(meta.metric_attribute)(trainer.lightning_module)
    return result


def update_average(callback: Callback, trainer: Trainer, *, times: int, step: int) -> None:
    """Let a `WeightAveraging` take in the parameters several times, as of `step`."""
    average: Any = callback  # it may not exist in this version
    for _ in range(times):
        average._average_model.update_parameters(trainer.lightning_module)
    average._latest_update_step = step


def trainer_of(profiler: PyTorchProfiler) -> Trainer | None:
    """Return the Trainer that a profiler was set up by; `None` if there is none any more.

    Raises:
        ReferenceError: If its module is gone.
        RuntimeError: If its module has no Trainer any more.
    """
    module = profiler._lightning_module
    return None if module is None else module.trainer


def forget_module(profiler: PyTorchProfiler) -> None:
    """Let a profiler of a run that is over be used in another one, although its module is gone."""
    profiler._lightning_module = None
