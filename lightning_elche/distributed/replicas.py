"""Checks that all ranks hold the same model."""

from __future__ import annotations

import torch

from lightning_elche.distributed.collectives import Collectives
from lightning_elche.exceptions import RankMismatch
from lightning_elche.ops.digest import digest_number

__all__ = ["check_replicas"]


def check_replicas(module: torch.nn.Module, collectives: Collectives) -> None:
    """Check that names, shapes and types of parameters and buffers are equal on every rank.

    Raises:
        RankMismatch: Naming the ranks that differ from rank 0.
    """
    layout = [
        (name, tuple(tensor.shape), str(tensor.dtype))
        for name, tensor in (*module.named_parameters(), *module.named_buffers())
    ]
    own = float(digest_number(repr(layout)))
    digests = [part[0] for part in collectives.gather([own])]
    others = [rank for rank, other in enumerate(digests) if other != digests[0]]
    if others:
        raise RankMismatch(
            "model",
            "Ranks must hold the same model, but names, shapes or types of the parameters of ranks "
            f"{others} differ from those of rank 0. Start all ranks with the same code and "
            "options.",
        )
