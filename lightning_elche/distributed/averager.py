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

    @torch.no_grad()
    def average(self, weights: Sequence[float]) -> Exchange:
        """Replace parameters and buffers by their averages over all ranks.

        Args:
            weights: Weight of each rank, length world, not all 0. A rank of weight 0 contributes
                nothing, whatever its parameters hold, and adopts the average.
        """
        collectives = self._collectives
        total, active = sum(weights), sum(weight > 0.0 for weight in weights)
        weight = weights[collectives.rank]
        squares = torch.zeros(2, dtype=torch.float64)
        # Order on every rank: one sum per floating type, then one maximum per integer tensor.
        for flat in self._flats:
            flat.load(weight / total, 1.0 / active if weight > 0.0 else 0.0)
            collectives.sum_(flat.average)
            squares += flat.squared_norms()
            flat.store()
        for tensor in self._integers:
            _take_maximum(tensor, collectives, contributes=weight > 0.0)
        return Exchange(
            exchanged_bytes=sum(flat.average.nbytes for flat in self._flats),
            relative_delta=_relative(squares) if weight > 0.0 else math.nan,
        )

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


def _take_maximum(tensor: Tensor, collectives: Collectives, *, contributes: bool) -> None:
    wide = tensor.to(torch.int64)  # no backend reduces bool
    if not contributes:
        wide = torch.full_like(wide, torch.iinfo(torch.int64).min)
    collectives.max_(wide)
    tensor.copy_(wide)
