"""The end of a run before its time: one last checkpoint, and how each rank leaves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lightning.pytorch.utilities import rank_zero_info

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from lightning_elche.control.events import AveragingEvent

__all__ = ["STOPPED_NAME", "save_stopped"]

STOPPED_NAME = "last-stopped.ckpt"  # `ckpt_path="last"` finds it by the first word


def save_stopped(trainer: Trainer, event: AveragingEvent) -> None:
    """Save the averaged parameters where the first checkpoint callback keeps its files.

    Nothing is saved where checkpoints are disabled, or if nobody has trained since the last event
    but a rank that has failed. Every rank calls this, aligned.

    Args:
        trainer: Whose state to save.
        event: The event that ends the run.
    """
    folder = getattr(trainer.checkpoint_callback, "dirpath", None)
    if not folder or not any(report.weight for report in event.reports):
        return
    path = Path(folder) / STOPPED_NAME
    trainer.save_checkpoint(path)
    rank_zero_info(
        f"Stopped at step {event.global_step} by {event.stop.name}. What all ranks have trained is "
        f"in {path}: continue with it as `ckpt_path`."
    )
