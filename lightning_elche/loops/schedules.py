"""Learning-rate schedules of interval "step", by the work of all ranks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lightning_elche.control.steps import schedule_count

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from lightning.pytorch.utilities.types import LRSchedulerTypeUnion

__all__ = ["StepSchedules"]


class StepSchedules:
    """Counts how often each schedule was stepped in one epoch.

    Args:
        trainer: Has the schedules.
        ahead: Optimizer steps that all ranks made in the epoch before it began.
    """

    def __init__(self, trainer: Trainer, *, ahead: int) -> None:
        self._trainer = trainer
        self._counts = [
            schedule_count(ahead, frequency=config.frequency)
            for config in trainer.lr_scheduler_configs
        ]

    def due(self, position: int) -> Iterator[LRSchedulerTypeUnion]:
        """Yield the schedules that must be stepped, each as often as it must.

        Args:
            position: Optimizer steps of all ranks since the epoch began.
        """
        trainer = self._trainer
        for index, config in enumerate(trainer.lr_scheduler_configs):
            if config.interval != "step" or config.reduce_on_plateau:
                continue
            due = schedule_count(
                position,
                batches=trainer.num_training_batches,
                frequency=config.frequency,
                accumulate=trainer.accumulate_grad_batches,
            )
            for _ in range(due - self._counts[index]):
                yield config.scheduler
            self._counts[index] = max(due, self._counts[index])
