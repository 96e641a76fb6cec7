"""The exchange of one flat buffer, with what it keeps from one event to the next."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from lightning_elche.control.outer import OuterOptimizer
from lightning_elche.distributed.collectives import Collectives
from lightning_elche.distributed.compressed_sum import CompressedSum
from lightning_elche.ops.flat import FlatAverage
from lightning_elche.ops.outer import outer_step_

__all__ = ["FlatExchange"]


class FlatExchange:
    """Averages a flat buffer over ranks and applies the outer optimizer to the average.

    Args:
        flat: What to exchange.
        collectives: How to reach the other ranks.
        outer_optimizer: What to make of the average; `None` to take it as it is.
        compression: "bf16" to send float32 as bfloat16 differences to the last result.
    """

    def __init__(
        self,
        flat: FlatAverage,
        collectives: Collectives,
        *,
        outer_optimizer: OuterOptimizer | None,
        compression: Literal["none", "bf16"],
    ) -> None:
        self.flat = flat
        self._collectives = collectives
        self._outer_optimizer = outer_optimizer
        self._compressed: CompressedSum | None = None
        self._kept: dict[str, Tensor] = {}  # from event to event, by name
        if compression == "bf16" and flat.own.dtype == torch.float32:
            self._compressed = CompressedSum(len(flat.own), flat.own.device, collectives)
            self._kept["error"] = self._compressed.error
        if outer_optimizer is not None and outer_optimizer.momentum:
            self._kept["momentum"] = torch.zeros_like(flat.weighted(flat.own))
        if outer_optimizer is not None or self._compressed is not None:
            self._kept["last"] = torch.zeros_like(flat.own)

    @property
    def wire_bytes(self) -> int:
        """Size of what is exchanged."""
        nbytes = self.flat.average.nbytes
        return nbytes if self._compressed is None else self._compressed.wire_bytes

    def start(self, *, contributes: bool) -> None:
        """Take over, exactly, the snapshot of the one rank that contributes; nothing else is kept.

        Args:
            contributes: Whether that is this rank.
        """
        scale = float(contributes)
        self.flat.scale(scale, scale)
        self._collectives.sum_(self.flat.average)
        self._restart(self.flat.average)

    def restart(self) -> None:
        """Forget what was kept, and start from the tensors as they are, equal on every rank."""
        if self._kept:
            self.flat.load()
            self._restart(self.flat.own)

    def exchange(self, scale: float, plain_scale: float) -> Tensor:
        """Make `average` of the flat buffer the result of all ranks.

        Returns:
            The squared norms of `FlatAverage.squared_norms`, of the plain average: they tell how
            far replicas are apart, which the outer optimizer has no part in.
        """
        flat = self.flat
        if self._compressed is None:
            flat.scale(scale, plain_scale)
            self._collectives.sum_(flat.average)
        else:
            flat.scale(scale, plain_scale, origin=self._kept["last"])
            self._compressed.sum_(flat.average)
            flat.average += self._kept["last"]
        squares = flat.squared_norms()
        if self._outer_optimizer is not None:
            outer_step_(
                flat.weighted(flat.average),
                last=flat.weighted(self._kept["last"]),
                momentum=self._kept.get("momentum"),
                config=self._outer_optimizer,
            )
        if "last" in self._kept:
            self._kept["last"].copy_(flat.average)
        return squares

    def kept(self, name: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield each tensor with the part of what is kept as `name` that belongs to it."""
        if name in self._kept:
            yield from self.flat.by_tensor(self._kept[name])

    def _restart(self, origin: Tensor) -> None:
        for name, kept in self._kept.items():
            if name == "last":
                kept.copy_(origin)
            else:
                kept.zero_()
