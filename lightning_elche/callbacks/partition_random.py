"""Random numbers of training that are the same again after a resume."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch.distributed as dist

from lightning_elche.ops.random_state import random_state, set_random_state
from lightning_elche.ops.seeding import seed_all, seed_of_batch

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

__all__ = ["BatchSeeds", "RandomMode"]

RandomMode = Literal["per_step", "capture", "off"]


class BatchSeeds:
    """Seeds the generators for each batch of this rank, or brings their states back.

    Args:
        mode: As of `PartitionCheckpoint`.
        base: The seed of the run.

    Attributes:
        base: The seed of the run, that of the checkpoint after a restore.
    """

    def __init__(self, mode: RandomMode, *, base: int) -> None:
        self.base = base
        self._mode = mode
        self._batches_done = 0
        self._counts: list[int] = []  # of all ranks
        self._are_uneven = False
        self._state: dict[str, Any] | None = None

    def begin_batch(self, trainer: Trainer) -> None:
        """Do it; called once a batch is at hand."""
        if self._mode == "per_step":
            rank, number = trainer.global_rank, self._batches_done
            seed_all(seed_of_batch(self.base, rank=rank, number=number))
        elif self._state is not None:
            set_random_state(self._state, trainer.strategy.root_device)
            self._state = None

    def end_batch(self) -> None:
        """Count a batch."""
        self._batches_done += 1

    def note(self, batches: Sequence[int]) -> None:
        """Take in how many batches each rank has trained since the last averaging event."""
        counts = self._counts or [0] * len(batches)
        self._counts = [before + new for before, new in zip(counts, batches, strict=True)]
        self._are_uneven = True

    def state_dict(self, trainer: Trainer) -> dict[str, Any]:
        """Return the state of all ranks; every rank calls this where they are aligned."""
        own = None
        if self._mode == "capture":
            own = random_state(trainer.strategy.root_device)
        return {
            "base": self.base,
            "batches_done": self._of_all_ranks(trainer),
            "states": [own] if trainer.world_size == 1 else _gathered(own, trainer),
        }

    def load_state_dict(self, state: dict[str, Any], trainer: Trainer) -> None:
        """Continue from a state, that of another number of ranks, too."""
        self.base = state["base"]
        rank, counts, states = trainer.global_rank, state["batches_done"], state["states"]
        is_same_world = len(counts) == trainer.world_size
        self._counts = list(counts) if is_same_world else [max(counts)] * trainer.world_size
        self._batches_done = self._counts[rank]
        self._state = states[rank] if is_same_world and self._mode == "capture" else None

    def _of_all_ranks(self, trainer: Trainer) -> list[int]:
        counts = list(self._counts)
        if not self._are_uneven:
            counts = [self._batches_done] * trainer.world_size
        counts[trainer.global_rank] = self._batches_done
        return counts


def _gathered(own: dict[str, Any] | None, trainer: Trainer) -> list[dict[str, Any] | None]:
    states = [own] * trainer.world_size
    if own is not None:
        dist.all_gather_object(states, own)
    return states
