"""The keys that ranks have logged, which must be the same before Lightning reduces their values."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import torch.distributed as dist

from lightning_elche.loops.lightning_names import log_nothing, logged_over_ranks

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from lightning_elche.distributed.rounds import Rounds

__all__ = ["agree_on_logged_keys"]


def agree_on_logged_keys(trainer: Trainer, rounds: Rounds) -> None:
    """Let all ranks reduce the same keys in the same order; every rank calls this, aligned.

    A rank may have logged less than others: in a branch that its batches did not take, or since it
    had no batch at all. It takes part with nothing, so that the value is that of the other ranks.

    Args:
        trainer: Has the results of the epoch.
        rounds: Compares the keys, one small exchange if they agree.
    """
    own = logged_over_ranks(trainer)
    if len(set(rounds.gather(zlib.crc32("\n".join(own).encode())))) == 1:
        return
    of_ranks: list[dict[str, dict[str, Any]]] = [{} for _ in range(trainer.world_size)]
    dist.all_gather_object(of_ranks, own)
    log_nothing(trainer, {key: fields for part in of_ranks for key, fields in part.items()})
