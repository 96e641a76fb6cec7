"""Keeps the gradients and counts right where a batch does not fit into memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lightning_elche.loops.skipping import Part
from lightning_elche.ops.oom import free_memory, is_oom

if TYPE_CHECKING:
    import torch

__all__ = ["OomGuard", "Skip"]


@dataclass(frozen=True, kw_only=True)
class Skip:
    """A batch that did not fit into memory.

    Attributes:
        part: Of the step, in which it did not.
        batches: Batches that were lost: it, and those whose accumulated gradients went with it.
    """

    part: Part
    batches: int


class OomGuard:
    """Turns an out-of-memory error in a batch of automatic optimization into a skipped batch.

    An error in the step of the optimizer itself is not one: it may leave parameters half changed.

    Args:
        module: Whose gradients.
        device: Where it is trained.
        on_skip: Called after a batch was skipped.
        on_learnt: Called after one was not.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        device: torch.device,
        *,
        on_skip: Callable[[Skip], None],
        on_learnt: Callable[[], None],
    ) -> None:
        self._module = module
        self._device = device
        self._on_skip = on_skip
        self._on_learnt = on_learnt
        self._num_forwards = 0  # of this batch
        self._held = 0  # batches whose gradients no step has used yet

    def begin(self) -> None:
        """As of `Skips`."""
        self._num_forwards = 0

    def begin_forward(self) -> None:
        """Take note that the loss of the batch is asked for."""
        self._num_forwards += 1

    def skips(self, error: Exception) -> bool:
        """Return whether an error in a forward or backward pass is a reason to skip the batch."""
        # An optimizer that asks for a loss several times has changed parameters meanwhile.
        return self._num_forwards == 1 and is_oom(error)

    def learnt(self, *, is_step: bool) -> None:
        """As of `Skips`."""
        self._held = 0 if is_step else self._held + 1
        self._on_learnt()

    def skip(self, part: Part, *, is_first: bool, is_step: bool) -> None:
        """As of `Skips`.

        A backward pass has changed gradients, and one that was to end a group has none to follow:
        what was accumulated is lost. What follows in the group makes a smaller step.
        """
        lost = self.drop_gradients() if part == "backward" or is_first or is_step else 0
        free_memory(self._device)
        self._on_skip(Skip(part=part, batches=1 + lost))

    def drop_gradients(self) -> int:
        """Forget what was accumulated, and return of how many batches it was."""
        for parameter in self._module.parameters():
            parameter.grad = None
        lost, self._held = self._held, 0
        return lost
