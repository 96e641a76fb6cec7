"""Which ranks were started by another rank, so that their exit codes are not the job's."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from lightning.pytorch.strategies import Strategy

__all__ = ["gather_objects", "is_child_rank"]

T = TypeVar("T")


def gather_objects(strategy: Strategy, own: T, *, world_size: int) -> list[T]:
    """Return what each rank has handed in; all call this where they are aligned."""
    return [strategy.broadcast(own, src=rank) for rank in range(world_size)]


def is_child_rank(trainer: Trainer) -> bool:
    """Return whether another rank has started this process; all ask this where they are aligned."""
    node = getattr(trainer, "node_rank", 0)
    own = (node, os.getpid())
    pids = gather_objects(trainer.strategy, own, world_size=trainer.world_size)
    return (node, os.getppid()) in pids
