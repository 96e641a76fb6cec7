"""Callbacks that act at steps: here they act at averaging events, where ranks agree.

Their hook `on_train_batch_end` counts the steps or reads the clock of one rank, and some then ask
for a collective. While a run lasts that hook does nothing, and what it would have done is done on
every rank at the first event after it became due.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from lightning.pytorch.utilities import rank_zero_info

from lightning_elche.control.steps import has_crossed
from lightning_elche.loops import lightning_names as names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightning.pytorch import Trainer
    from lightning.pytorch.callbacks import ModelCheckpoint

__all__ = ["StepActions"]

HOOK = "on_train_batch_end"


class StepActions:
    """What the callbacks of a Trainer do at steps, and its validations by the clock.

    Args:
        trainer: Has the callbacks.
    """

    def __init__(self, trainer: Trainer) -> None:
        callbacks: Sequence[Any] = trainer.callbacks  # type: ignore[attr-defined]  # set by a connector
        self._trainer = trainer
        self._savers = [callback for callback in callbacks if names.saves_at_steps(callback)]
        self._timers = [callback for callback in callbacks if names.stops_at_steps(callback)]
        self._averages = [callback for callback in callbacks if names.averages_weights(callback)]
        self._has_told = False
        self._muted = [*self._savers, *self._timers, *self._averages]
        for callback in self._muted:
            setattr(callback, HOOK, _do_nothing)

    def close(self) -> None:
        """Give the callbacks their hooks back."""
        for callback in self._muted:
            vars(callback).pop(HOOK, None)

    def is_time_up(self) -> bool:
        """Return whether a `Timer`, or `max_time`, wants this rank to stop."""
        if not any(timer.time_remaining() <= 0.0 for timer in self._timers):
            return False
        if not self._has_told:
            self._has_told = True
            rank_zero_info("The time limit is reached; all ranks stop at the next averaging event.")
        return True

    def due_by_clock(self) -> list[bool]:
        """Return what is due by this rank's clock: a validation, and each of the checkpoints."""
        now = time.monotonic()
        checkpoints = (names.is_checkpoint_due(saver, now) for saver in self._savers)
        return [names.is_validation_due(self._trainer, now), *checkpoints]

    def saves(self, *, before: int, now: int) -> bool:
        """Return whether a checkpoint is due by the agreed step count."""
        return any(_has_crossed(saver, before, now) for saver in self._savers)

    def save(self, *, before: int, now: int, by_clock: Sequence[bool]) -> None:
        """Save the checkpoints that are due; every rank calls this, aligned.

        Args:
            before: The agreed step count at the last call.
            now: That count now.
            by_clock: What `due_by_clock` said on rank 0.
        """
        for saver, is_due in zip(self._savers, by_clock[1:], strict=True):
            if is_due:
                names.set_time_of_checkpoint(saver, time.monotonic())
            if is_due or _has_crossed(saver, before, now):
                names.save_at_step(self._trainer, saver)

    def average_weights(self, *, before: int, now: int) -> None:
        """Let weight averages take in the parameters once for every step that they count.

        Cost: as many passes over the parameters as all ranks have made such steps.
        """
        for average in self._averages:
            times = sum(average.should_update(step_idx=step) for step in range(before, now))
            names.update_average(average, self._trainer, times=times, step=now)


def _has_crossed(saver: ModelCheckpoint, before: int, now: int) -> bool:
    return has_crossed(before, now, names.steps_between_checkpoints(saver))


def _do_nothing(*_: object) -> None:
    pass
