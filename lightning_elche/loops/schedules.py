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
        position: Optimizer steps that all ranks have made in the epoch, and schedules with them.
    """

    def __init__(self, trainer: Trainer, *, position: int) -> None:
        self._trainer = trainer
        configs = trainer.lr_scheduler_configs
        self._counts = [self._count(config.frequency, position) for config in configs]

    def due(self, position: int) -> Iterator[LRSchedulerTypeUnion]:
        """Yield the schedules that must be stepped, each as often as it must.

        Args:
            position: Optimizer steps of all ranks since the epoch began.
        """
        for index, config in enumerate(self._trainer.lr_scheduler_configs):
            if config.interval != "step" or config.reduce_on_plateau:
                continue
            due = self._count(config.frequency, position)
            for _ in range(due - self._counts[index]):
                yield config.scheduler
            self._counts[index] = max(due, self._counts[index])

    def _count(self, frequency: int, position: int) -> int:
        return schedule_count(
            position,
            batches=self._trainer.num_training_batches,
            frequency=frequency,
            accumulate=self._trainer.accumulate_grad_batches,
        )
