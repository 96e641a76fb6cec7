"""Automatic optimization that goes on with the next batch where one does not fit into memory."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Literal, Protocol

from typing_extensions import override

from lightning_elche.loops.lightning_names import (
    AutomaticOptimization,
    accumulates,
    leave_hooks,
)

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from torch.optim import Optimizer

__all__ = ["BatchSkipped", "Part", "SkippingOptimization", "Skips", "install_skipping"]

Part = Literal["forward", "backward"]


class BatchSkipped(Exception):
    """Leaves the step of a batch that did not fit into memory, and never the loop.

    Attributes:
        part: Of the step, in which it did not.
    """

    def __init__(self, part: Part) -> None:
        super().__init__(part)
        self.part = part


class Skips(Protocol):
    """What is to be done about a batch."""

    def begin(self) -> None:
        """Take note that a batch begins."""
        ...

    def learnt(self, *, is_step: bool) -> None:
        """Take in a batch that did fit.

        Args:
            is_step: Whether the optimizer was stepped, rather than gradients accumulated.
        """
        ...

    def skip(self, part: Part, *, is_first: bool, is_step: bool) -> None:
        """Take in a batch that did not fit.

        Args:
            part: Of the step, in which it did not.
            is_first: Whether it was to begin a group of batches whose gradients are accumulated.
            is_step: Whether it was to end one.
        """
        ...


class SkippingOptimization(AutomaticOptimization):
    """As Lightning's own, which has no way to leave out a batch on one of several ranks.

    The error leaves the optimizer's step, so that nothing of it takes place: no hook, no loss
    scaling, no count of a step.
    """

    trainer: Trainer
    skips: Skips

    @override
    def run(
        self,
        optimizer: Optimizer,
        batch_idx: int,
        kwargs: OrderedDict[str, Any],
    ) -> dict[str, Any]:
        self.skips.begin()
        group = self.trainer.accumulate_grad_batches
        is_step = group == 1 or not accumulates(self.trainer)
        try:
            output = super().run(optimizer, batch_idx, kwargs)
        except BatchSkipped as err:
            part = err.part
        else:
            self.skips.learnt(is_step=is_step)
            return output
        # Outside of the handler, which would keep the frames that hold the memory.
        leave_hooks(self.trainer)
        self.skips.skip(part, is_first=batch_idx % group == 0, is_step=is_step)
        return {}  # as Lightning, for a step that returns nothing


def install_skipping(trainer: Trainer, skips: Skips | None) -> None:
    """Let the Trainer's own loop skip batches, or no longer.

    Args:
        trainer: About to train.
        skips: What is to be done about a batch; `None` for Lightning's own ways.

    Raises:
        RuntimeError: If something else has replaced the loop.
    """
    loop = trainer.fit_loop.epoch_loop.automatic_optimization
    if type(loop) not in (AutomaticOptimization, SkippingOptimization):
        raise RuntimeError(
            "`trainer.fit_loop.epoch_loop.automatic_optimization` must be Lightning's own loop, "
            f"got {type(loop)}. Skipping batches cannot be combined with another replacement."
        )
    # The object stays, with its progress.
    loop.__class__ = AutomaticOptimization if skips is None else SkippingOptimization
    if isinstance(loop, SkippingOptimization):
        assert skips is not None
        loop.skips = skips
