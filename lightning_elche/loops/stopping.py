"""Checkpoints that somebody has asked for, and the last one of a run that ends before its time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightning_elche.typing import SavesOnRequest

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from lightning_elche.control.events import AveragingEvent
    from lightning_elche.control.requests import StopCause

__all__ = ["STOPPED_NAME", "PlainSaver", "Saver", "has_trained", "tell_of_stop"]

STOPPED_NAME = "last-stopped.ckpt"  # `ckpt_path="last"` finds it by the first word
REQUESTED_NAME, REQUESTED_LABEL = "requested-{}.ckpt", "requested"


class Saver(Protocol):
    """Saves what all ranks have trained; every rank calls it at the same point, aligned."""

    def save_stopped(self, trainer: Trainer, event: AveragingEvent) -> None:
        """Save the last checkpoint of a run, and do what else is to be done at its end."""
        ...

    def save_requested(self, trainer: Trainer, event: AveragingEvent) -> None:
        """Save a checkpoint that was asked for."""
        ...


class PlainSaver:
    """Saves where the first checkpoint callback keeps its files; nowhere if there is none."""

    def save_stopped(self, trainer: Trainer, event: AveragingEvent) -> None:
        """Save, unless nobody but a rank that has failed has trained since the last event.

        Nothing is saved, either, where no rank's parameters are sound.
        """
        folder = _folder_of(trainer)
        is_lost = all(report.sits_out for report in event.reports)
        if folder is None or is_lost or not has_trained(event):
            return
        path = folder / STOPPED_NAME
        trainer.save_checkpoint(path)
        tell_of_stop(event.global_step, event.stop, path)

    def save_requested(self, trainer: Trainer, event: AveragingEvent) -> None:
        """Save with the callback that does so on request, else as the Trainer does."""
        callbacks = trainer.callbacks  # type: ignore[attr-defined]  # set by a connector
        for callback in callbacks:
            if isinstance(callback, SavesOnRequest):
                callback.checkpoint(REQUESTED_LABEL)
                return
        folder = _folder_of(trainer)
        if folder is None:
            rank_zero_warn(
                "A checkpoint was asked for, but `enable_checkpointing` is off and nothing says "
                "where to keep it. Add a `ModelCheckpoint`."
            )
            return
        trainer.save_checkpoint(folder / REQUESTED_NAME.format(event.global_step))


def has_trained(event: AveragingEvent) -> bool:
    """Return whether there is something to save: if a rank has failed, what others have trained."""
    return event.failed_rank is None or any(report.weight for report in event.reports)


def tell_of_stop(step: int, cause: StopCause, path: Path | str) -> None:
    """Say on rank zero where the run has stopped, and how to go on."""
    rank_zero_info(
        f"Stopped at step {step} by {cause.name}. What all ranks have trained is "
        f"in {path}: continue with it as `ckpt_path`."
    )


def _folder_of(trainer: Trainer) -> Path | None:
    folder = getattr(trainer.checkpoint_callback, "dirpath", None)
    return Path(folder) if folder else None
