"""What the options of a Trainer allow of the batches of an epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

__all__ = ["max_batches_left", "may_open"]


def max_batches_left(trainer: Trainer, *, global_step: int) -> int | None:
    """Return how many batches all ranks may still train, `None` for no limit.

    Args:
        trainer: Its `max_steps` counts.
        global_step: Optimizer steps that all ranks have made.
    """
    if trainer.max_steps == -1:
        return None
    return (trainer.max_steps - global_step) * trainer.accumulate_grad_batches


def may_open(trainer: Trainer, epoch: int) -> bool:
    """Return whether ranks out of work may train batches of `epoch` ahead of its time."""
    options: Any = trainer  # Lightning sets some of them without declaring them
    return (
        (options.max_epochs in (None, -1) or epoch < options.max_epochs)
        and options.max_steps == -1
        and options.accumulate_grad_batches == 1
        and options.reload_dataloaders_every_n_epochs == 0
        and not options.should_stop
    )
