"""Weighted averaging of parameters and buffers through flat buffers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_elche.distributed.collectives import Collectives
from lightning_elche.exceptions import RankMismatch

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
            squares += flat.store()
        for tensor in self._integers:
            _take_maximum(tensor, collectives, contributes=weight > 0.0)
        return Exchange(
            exchanged_bytes=sum(flat.average.nbytes for flat in self._flats),
            relative_delta=_relative(squares) if weight > 0.0 else math.nan,
        )

    def _select(self, parameters: Sequence[Tensor]) -> None:
        params = [_real(param) for param in parameters]
        buffers = [_real(buffer) for buffer in self._buffers]
        both = [*params, *buffers]
        self._integers = [tensor for tensor in both if not tensor.is_floating_point()]
        types = {_wire(tensor) for tensor in both if tensor.is_floating_point()}
        self._flats = [
            _Flat(_of_type(dtype, params), _of_type(dtype, buffers))
            for dtype in sorted(types, key=str)
        ]


class _Flat:
    """The tensors of one wire type as two flat buffers: what the rank had, and the average."""

    def __init__(self, params: list[Tensor], buffers: list[Tensor]) -> None:
        self._tensors = [*params, *buffers]
        self._num_params = sum(param.numel() for param in params)
        size = self._num_params + sum(buffer.numel() for buffer in buffers)
        first = self._tensors[0]
        self._own = torch.empty(size, dtype=_wire(first), device=first.device)
        self.average = torch.empty_like(self._own)
        self._own_views = _views(self._own, self._tensors)
        self._average_views = _views(self.average, self._tensors)

    def load(self, param_scale: float, buffer_scale: float) -> None:
        """Copy the tensors in and scale them; a scale of 0 zeroes, so that NaN cannot spread."""
        torch._foreach_copy_(self._own_views, self._tensors)
        cut = self._num_params
        for part, scale in ((slice(cut), param_scale), (slice(cut, None), buffer_scale)):
            if scale:
                torch.mul(self._own[part], scale, out=self.average[part])
            else:
                self.average[part].zero_()

    def store(self) -> Tensor:
        """Copy the average out; return squared norms of (pre - post, post) of the parameters."""
        own, average = self._own[: self._num_params], self.average[: self._num_params]
        norms = torch.stack([torch.dist(own, average), torch.linalg.vector_norm(average)])
        torch._foreach_copy_(self._tensors, self._average_views)
        return norms.double().square().cpu()


def _real(tensor: Tensor) -> Tensor:
    """The tensor, with a dimension for the two parts of a complex number."""
    return torch.view_as_real(tensor.detach()) if tensor.is_complex() else tensor


def _wire(tensor: Tensor) -> torch.dtype:
    """The type in which a tensor is averaged: float32 at least."""
    return torch.promote_types(tensor.dtype, torch.float32)


def _of_type(dtype: torch.dtype, tensors: Sequence[Tensor]) -> list[Tensor]:
    return [t for t in tensors if t.is_floating_point() and _wire(t) == dtype]


def _views(flat: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


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
