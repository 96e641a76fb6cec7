"""Weighted averaging of parameters and buffers through flat buffers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

import torch
from torch import Tensor

from lightning_elche.control.outer import OuterOptimizer
from lightning_elche.distributed.collectives import Collectives
from lightning_elche.distributed.flat_exchange import FlatExchange
from lightning_elche.exceptions import RankMismatch
from lightning_elche.ops.flat import as_real
from lightning_elche.ops.grouping import group_by_wire_type

__all__ = ["NO_EXCHANGE", "Averager", "AveragerState", "Exchange"]

KEPT = ("last", "momentum", "error")


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """What one exchange did on this rank.

    Attributes:
        exchanged_bytes: Size of the averaged buffers, as they travel.
        relative_delta: `||pre - post|| / ||post||` over this rank's parameters, infinite where that
            is no number, and NaN for a rank that did not contribute.
        saved_bytes: By how much compression made them smaller.
        is_finite: Whether the average is, equal on every rank that took part.
        ended_ns: When the last collective ended, on this rank's monotonic clock; 0 without one.
    """

    exchanged_bytes: int
    relative_delta: float
    saved_bytes: int = 0
    is_finite: bool = True
    ended_ns: int = 0


NO_EXCHANGE = Exchange(exchanged_bytes=0, relative_delta=math.nan)


class AveragerState(TypedDict):
    """What `Averager.state_dict` returns, by position of the parameter in the model."""

    momentum: dict[int, Tensor]


class Averager:
    """Averages the parameters and buffers of replicas, one collective per data type.

    Parameters are weighted, floating-point buffers get equal weight from every rank that
    contributes, integers take the maximum over these ranks. Half-precision tensors are accumulated
    in float32. The flat buffers take twice the size of the parameters, and once more each for an
    outer optimizer or compression, for momentum, and for what compression has to make up for.

    Cost per event: O(parameters) memory traffic, no Python per parameter.

    Args:
        parameters: Every parameter of the model, in the same order on every rank.
        buffers: Every buffer of the model.
        collectives: How to reach the other ranks.
        outer_optimizer: What to make of the average; `None` to take it as it is.
        compression: "bf16" to exchange float32 and half types as bfloat16 differences to the last
            result, with error feedback.
        on_host: Exchange in host memory, whatever device the tensors are on.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        buffers: Iterable[Tensor],
        collectives: Collectives,
        *,
        outer_optimizer: OuterOptimizer | None = None,
        compression: Literal["none", "bf16"] = "none",
        on_host: bool = False,
    ) -> None:
        self._collectives = collectives
        self._outer_optimizer = outer_optimizer
        self._compression = compression
        self._on_host = on_host
        self._parameters = list(parameters)
        self._buffers = list(buffers)
        self._is_started = outer_optimizer is None and compression == "none"
        self._select(self._parameters)

    def start(self) -> None:
        """Let every rank adopt, exactly, what rank 0 holds.

        This is what the outer optimizer starts from, and what the first differences are taken to.
        Every rank calls this at the same point.
        """
        self._is_started = True
        self.load()
        is_first = self._collectives.rank == 0
        for part in self._parts:
            part.start(contributes=is_first)
        self._take_maxima(contributes=is_first)
        self.store()

    @torch.no_grad()
    def select_trainable(self) -> None:
        """Leave frozen parameters out from now on; every rank calls this at the same point.

        They are equal everywhere and would only drift by rounding. What is kept from event to event
        stays for parameters that do.

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
        if {id(param) for param in trainable} != self._selected:
            kept = {name: self._kept(name) for name in KEPT}
            self._select(trainable)
            for part in self._parts:
                part.restart()
            for name, tensors in kept.items():
                _copy(tensors, to=self._kept(name))

    @torch.no_grad()
    def load(self) -> None:
        """Take a snapshot of parameters and buffers: the first step of an average.

        Raises:
            RuntimeError: If `start` was not called, but is needed.
        """
        if not self._is_started:
            raise RuntimeError(
                "`start` must be called before the first average with an outer optimizer or "
                "compression: they count from what all ranks hold."
            )
        for part in self._parts:
            part.flat.load()
        # Integers travel wide, since no backend reduces bool.
        self._own_integers = [tensor.to(torch.int64, copy=True) for tensor in self._integers]

    @torch.no_grad()
    def exchange(self, weights: Sequence[float], *, crosses_nodes: bool = True) -> Exchange:
        """Average the snapshots over all ranks: the second step, which leaves the model alone.

        Snapshot and average are both kept until the next `load`.

        Args:
            weights: Weight of each rank, length world, not all 0. A rank of weight 0 contributes
                nothing, whatever its parameters hold, and adopts the average.
            crosses_nodes: Average over all nodes; else over the ranks of this rank's, and ranks of
                others weigh 0.
        """
        weight = weights[self._collectives.rank]
        contributes = weight > 0.0
        scale = weight / sum(weights)
        plain_scale = 1.0 / sum(other > 0.0 for other in weights) if contributes else 0.0
        squares = torch.zeros(2, dtype=torch.float64)
        # Order on every rank: one sum per floating type, then one maximum per integer tensor.
        with self._collectives.scope(crosses_nodes=crosses_nodes):
            for part in self._parts:
                squares += part.exchange(scale, plain_scale)
            self._take_maxima(contributes=contributes)
        wire_bytes = sum(part.wire_bytes for part in self._parts)
        return Exchange(
            exchanged_bytes=wire_bytes,
            saved_bytes=sum(part.flat.average.nbytes for part in self._parts) - wire_bytes,
            relative_delta=_relative(squares) if contributes else math.nan,
            is_finite=math.isfinite(squares[1]),
        )

    @torch.no_grad()
    def store(self) -> None:
        """Write the averages to parameters and buffers: the third step."""
        for part in self._parts:
            part.flat.store()
        for tensor, maximum in zip(self._integers, self._maxima, strict=True):
            tensor.copy_(maximum)

    @torch.no_grad()
    def add_difference(self) -> None:
        """Add what averaging changed to a model that was trained on since `load`.

        It takes the place of `store`, so that no step is lost.
        """
        for part in self._parts:
            part.flat.add_difference()
        integers = zip(self._integers, self._maxima, self._own_integers, strict=True)
        for tensor, maximum, own in integers:
            tensor.copy_(tensor.to(torch.int64) + maximum - own)

    def state_dict(self) -> AveragerState:
        """Return what a checkpoint must hold beside the parameters, equal on every rank.

        Not in it are what the outer optimizer and the differences start from, since that is the
        averaged parameters, which a checkpoint taken at an averaging event holds anyway; and what
        compression still has to make up for, which differs by rank.
        """
        momentum = self._kept("momentum")
        return {"momentum": {key: part.to("cpu", copy=True) for key, part in momentum.items()}}

    @torch.no_grad()
    def load_state_dict(self, state: AveragerState) -> None:
        """Continue from `state` and the present parameters, which must be equal on every rank.

        Momentum of parameters that are frozen now is left out; without a saved one it starts at 0.
        The error of compression starts at 0: at most one rounding of one difference is lost.

        Raises:
            ValueError: If it is the state of another model.
        """
        for part in self._parts:
            part.restart()
        momentum = self._kept("momentum")
        saved = {key: part for key, part in state["momentum"].items() if key in momentum}
        if any(momentum[key].shape != part.shape for key, part in saved.items()):
            raise ValueError(
                "The state of `outer_optimizer` must be of the same model, got other shapes. Use a "
                "new strategy for another model."
            )
        _copy(saved, to=momentum)

    def _take_maxima(self, *, contributes: bool) -> None:
        self._maxima = [own.clone() for own in self._own_integers]
        for maximum in self._maxima:
            if not contributes:
                maximum.fill_(torch.iinfo(torch.int64).min)
            self._collectives.max_(maximum)

    def _select(self, parameters: Sequence[Tensor]) -> None:
        self._selected = {id(param) for param in parameters}
        num_params = len(self._parameters)
        tensors = {
            position: as_real(tensor)
            for position, tensor in enumerate((*self._parameters, *self._buffers))
            if position >= num_params or id(tensor) in self._selected
        }
        self._positions = {id(tensor): position for position, tensor in tensors.items()}
        params = [tensor for position, tensor in tensors.items() if position < num_params]
        buffers = [tensor for position, tensor in tensors.items() if position >= num_params]
        self._integers = [t for t in (*params, *buffers) if not t.is_floating_point()]
        flats = group_by_wire_type(
            [param for param in params if param.is_floating_point()],
            [buffer for buffer in buffers if buffer.is_floating_point()],
            on_host=self._on_host,
        )
        self._parts = [
            FlatExchange(
                flat,
                self._collectives,
                outer_optimizer=self._outer_optimizer,
                compression=self._compression,
            )
            for flat in flats
        ]

    def _kept(self, name: str) -> dict[int, Tensor]:
        """Return views of what is kept as `name`, by position of the tensor in the model."""
        pairs = (pair for part in self._parts for pair in part.kept(name))
        return {self._positions[id(tensor)]: kept for tensor, kept in pairs}


def _copy(tensors: dict[int, Tensor], *, to: dict[int, Tensor]) -> None:
    for position in tensors.keys() & to.keys():
        to[position].copy_(tensors[position])


def _relative(squares: Tensor) -> float:
    delta, post = squares.sqrt().tolist()
    relative = delta / post if post else 0.0
    return relative if math.isfinite(relative) else math.inf
