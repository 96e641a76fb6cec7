"""What of a Trainer is rolled back, and what must stand where for that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy

from lightning_elche.callbacks.gate_train import GateTrain
from lightning_elche.loops.lightning_names import averages_weights
from lightning_elche.ops.snapshot import LiveState, Stateful

if TYPE_CHECKING:
    from lightning.pytorch import Callback, Trainer
    from lightning.pytorch.strategies import Strategy

__all__ = [
    "check_callbacks",
    "check_strategy",
    "divisor_of",
    "gates_of",
    "keeping_epoch_schedules",
    "live_state",
]


def live_state(trainer: Trainer, detector: Stateful) -> LiveState:
    """Return what training changes.

    Args:
        trainer: About to train.
        detector: Judges the losses.
    """
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]  # set by a connector
    rewindable = {
        f"callback {index}": callback
        for index, callback in enumerate(callbacks)
        if getattr(callback, "is_rewindable", False)
    }
    return LiveState(
        module=trainer.lightning_module,
        device=trainer.strategy.root_device,
        optimizers=trainer.optimizers,
        schedulers=[config.scheduler for config in trainer.lr_scheduler_configs],
        others={"precision": trainer.precision_plugin, "detector": detector, **rewindable},
    )


@contextmanager
def keeping_epoch_schedules(trainer: Trainer) -> Iterator[None]:
    """Let schedulers of epochs that are restored within make their later steps again.

    An undone batch has not undone the end of an epoch.
    """
    schedulers = [
        config.scheduler
        for config in trainer.lr_scheduler_configs
        if config.interval == "epoch" and not config.reduce_on_plateau
    ]
    before = [getattr(scheduler, "last_epoch", 0) for scheduler in schedulers]
    yield
    for scheduler, steps in zip(schedulers, before, strict=True):
        for _ in range(steps - getattr(scheduler, "last_epoch", 0)):
            trainer.lightning_module.lr_scheduler_step(scheduler, None)


def divisor_of(trainer: Trainer, monitor: str) -> int:
    """Return what Lightning has divided a monitored value by: the loss, and nothing else."""
    is_divided = monitor == "loss" and trainer.lightning_module.automatic_optimization
    return trainer.accumulate_grad_batches if is_divided else 1


def gates_of(trainer: Trainer) -> list[GateTrain]:
    """Return the training contracts that are enforced."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return [callback for callback in callbacks if isinstance(callback, GateTrain)]


def check_strategy(strategy: Strategy) -> None:
    """Refuse a strategy under which a rank has only a part of the parameters.

    Raises:
        ValueError: Naming the strategy.
    """
    if isinstance(strategy, (DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy)):
        raise ValueError(
            "`strategy` must leave each rank a whole copy of the parameters, which Rollback keeps, "
            f"got {type(strategy).__name__}. Use ElCheStrategy or DDP."
        )


def check_callbacks(trainer: Trainer, own: Callback) -> None:
    """Refuse an order of callbacks in which steps are taken in before they are undone.

    Raises:
        ValueError: Naming the callback.
    """
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    for callback in callbacks[: callbacks.index(own)]:
        if isinstance(callback, GateTrain) or averages_weights(callback):
            raise ValueError(
                f"`callbacks` must have Rollback before {type(callback).__name__}, which would "
                "otherwise take in steps that are undone, got it after."
            )
