"""A save in which every rank takes part."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lightning_elche.distributed.rank_executor import RankExecutor
from lightning_elche.exceptions import RankFailed
from lightning_elche.ops.digest import digest_number
from lightning_elche.ops.tensor_state import SplitState, split_state
from lightning_elche.ops.tensor_types import code_and_shape
from lightning_elche.partition.manifest import is_in_row_space

__all__ = ["SharedSave"]


@dataclass(frozen=True, kw_only=True)
class SharedSave:
    """How ranks save together; every rank has one, and makes the same calls.

    Attributes:
        executor: Reaches the other ranks from the thread that writes.
        gather: Returns the numbers of all ranks, on the thread that trains.
        keeps_optimizers: Whether the states of optimizers are those of each rank.
    """

    executor: RankExecutor
    gather: Callable[[float], Sequence[float]]
    keeps_optimizers: bool = False

    def split(
        self, state: Mapping[str, Any], parameters: Sequence[Sequence[str]]
    ) -> SplitState | None:
        """Return what this rank has of a state; `None` if rank 0 has to write all of it.

        That is so where ranks hold other tensors: one has not stepped a parameter yet, say.

        Args:
            state: What `Strategy.save_checkpoint` is given.
            parameters: As of `split_state`.

        Raises:
            RankFailed: If another rank has a state that cannot be stored.
        """
        rank = self.executor.rank
        split: SplitState | None = None
        error: Exception | None = None
        try:
            owner = rank if self.keeps_optimizers else None
            split = split_state(state, parameters=parameters, owner=owner)
        except Exception as err:  # the others must hear of it, whatever it is
            error = err
        numbers = self.gather(math.nan if split is None else _structure(split))
        if error is not None:
            raise error
        failed = next((other for other, one in enumerate(numbers) if math.isnan(one)), None)
        if failed is not None:
            raise RankFailed(failed, "an error when it saved a checkpoint")
        assert split is not None
        if len(set(numbers)) > 1:
            return None
        if rank == 0:
            return split
        own = {name: one for name, one in split.groups.items() if name != "aux"}
        return replace(split, groups=own)


def _structure(split: SplitState) -> int:
    """Return a number that is equal on ranks that can write parts of one image."""
    inside = [
        (group, one.name, code_and_shape(one.tensor), one.alias_of)
        for group, tensors in split.groups.items()
        if is_in_row_space(group)
        for one in tensors
    ]
    return digest_number(repr(inside))
