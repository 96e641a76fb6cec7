"""Weighted averaging of parameters and buffers through flat buffers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_elche.distributed.collectives import Collectives
from lightning_elche.exceptions import RankMismatch
from lightning_elche.ops.flat import as_real, group_by_wire_type

__all__ = ["Averager", "Exchange"]


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """What one exchange did on this rank.

    Attributes:
        exchanged_bytes: Size of the averaged buffers.
        relative_delta: `||pre - post|| / ||post||` over this rank's parameters, infinite where that
            is no number, and NaN for a rank that did not contribute.
    """

    exchanged_bytes: int
    relative_delta: float


class Averager:
    """Averages the parameters and buffers of replicas, one collective per data type.

    Parameters are weighted, floating-point buffers get equal weight from every rank that
    contributes, integers take the maximum over these ranks. Half-precision tensors are accumulated
    in float32. The flat buffers take twice the size of the parameters.

    Cost per event: O(parameters) memory traffic, no Python per parameter.

    Args:
        parameters: Every parameter of the model, in the same order on every rank.
        buffers: Every buffer of the model.
        collectives: How to reach the other ranks.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        buffers: Iterable[Tensor],
        collectives: Collectives,
    ) -> None:
        self._collectives = collectives
        self._parameters = list(parameters)
        self._buffers = list(buffers)
        self._select(self._parameters)

    def select_trainable(self) -> None:
        """Leave frozen parameters out from now on; every rank calls this at the same point.

        They are equal everywhere and would only drift by rounding.

        Raises:
            RankMismatch: If ranks froze different parameters.
        """
        trainable = [param for param in self._parameters if param.requires_grad]
        numbers = [len(trainable), sum(param.numel() for param in trainable)]
        of_ranks = self._collectives.gather(numbers)
        if any(other != of_ranks[0] for other in of_ranks):
            counts = [int(count) for count, _ in of_ranks]
            raise RankMismatch(
                "model",
                f"Ranks must train the same parameters in an epoch, got {counts} by rank. Freeze "
                "and unfreeze on all ranks at the same epoch.",
            )
        if [id(param) for param in trainable] != self._selected:
            self._select(trainable)

    def average(self, weights: Sequence[float]) -> Exchange:
        """Replace parameters and buffers by their averages over all ranks.

        It consists of `load`, `exchange` and `store`, which can be called one by one.

        Args:
            weights: Weight of each rank, length world, not all 0. A rank of weight 0 contributes
                nothing, whatever its parameters hold, and adopts the average.
        """
        self.load(weights)
        exchange = self.exchange()
        self.store()
        return exchange

    @torch.no_grad()
    def load(self, weights: Sequence[float]) -> None:
        """Take a snapshot of parameters and buffers; the first step of `average`.

        Args:
            weights: As of `average`.
        """
        self._weights = list(weights)
        for flat in self._flats:
            flat.load()
        # Integers travel wide, since no backend reduces bool.
        self._own_integers = [tensor.to(torch.int64, copy=True) for tensor in self._integers]

    @torch.no_grad()
    def exchange(self) -> Exchange:
        """Average the snapshots over all ranks; the second step, which leaves the model alone.

        Snapshot and average are both kept until the next `load`.
        """
        collectives = self._collectives
        weight = self._weights[collectives.rank]
        contributes = weight > 0.0
        scale = weight / sum(self._weights)
        plain_scale = 1.0 / sum(other > 0.0 for other in self._weights) if contributes else 0.0
        squares = torch.zeros(2, dtype=torch.float64)
        # Order on every rank: one sum per floating type, then one maximum per integer tensor.
        for flat in self._flats:
            flat.scale(scale, plain_scale)
            collectives.sum_(flat.average)
            squares += flat.squared_norms()
        self._maxima = [own.clone() for own in self._own_integers]
        for maximum in self._maxima:
            if not contributes:
                maximum.fill_(torch.iinfo(torch.int64).min)
            collectives.max_(maximum)
        return Exchange(
            exchanged_bytes=sum(flat.average.nbytes for flat in self._flats),
            relative_delta=_relative(squares) if contributes else math.nan,
        )

    @torch.no_grad()
    def store(self) -> None:
        """Write the averages to parameters and buffers; the third step."""
        for flat in self._flats:
            flat.store()
        for tensor, maximum in zip(self._integers, self._maxima, strict=True):
            tensor.copy_(maximum)

    def _select(self, parameters: Sequence[Tensor]) -> None:
        self._selected = [id(param) for param in parameters]
        params = [as_real(param) for param in parameters]
        buffers = [as_real(buffer) for buffer in self._buffers]
        self._integers = [t for t in (*params, *buffers) if not t.is_floating_point()]
        self._flats = group_by_wire_type(
            [param for param in params if param.is_floating_point()],
            [buffer for buffer in buffers if buffer.is_floating_point()],
        )


def _relative(squares: Tensor) -> float:
    delta, post = squares.sqrt().tolist()
    relative = delta / post if post else 0.0
    return relative if math.isfinite(relative) else math.inf
