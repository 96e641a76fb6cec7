"""Averages the states of optimizers along with the parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from lightning_elche.distributed.collectives import Collectives
from lightning_elche.ops.grouping import group_by_wire_type
from lightning_elche.ops.optimizer_state import optimizer_tensors

__all__ = ["OptimizerAverager"]


class OptimizerAverager:
    """Averages moments with the weights of the parameters; step counters take the maximum.

    Replicas whose moments are averaged as often as their parameters continue from one common state,
    as after a restart from a checkpoint.

    Args:
        optimizers: Returns the optimizers, equal on every rank but for their states.
        collectives: How to reach the other ranks.
        every: Average at every n-th event.
        on_host: As of `Averager`.
    """

    def __init__(
        self,
        optimizers: Callable[[], Sequence[torch.optim.Optimizer]],
        collectives: Collectives,
        *,
        every: int = 1,
        on_host: bool = False,
    ) -> None:
        self._optimizers = optimizers
        self._collectives = collectives
        self._every = every
        self._on_host = on_host
        self._seen: list[tuple[int, int]] | None = None

    def is_due(self, index: int) -> bool:
        """Return whether states are averaged at event `index`, which counts from 0 on all ranks."""
        return (index + 1) % self._every == 0

    def layout(self) -> int:
        """Return a number that is equal on ranks whose states can be averaged.

        States come into being with the first step of a parameter, which one rank may have made and
        another not.
        """
        states = [optimizer.state for optimizer in self._optimizers()]
        seen = [(id(state), len(state)) for state in states]
        if seen != self._seen:
            self._seen = seen
            self._tensors = optimizer_tensors(self._optimizers())
            self._flats = group_by_wire_type(self._tensors.moments, on_host=self._on_host)
        return self._tensors.digest

    @torch.no_grad()
    def load(self) -> None:
        """Take a snapshot of the states, laid out as at the last call of `layout`."""
        for flat in self._flats:
            flat.load()
        counters = [counter.reshape(()).double().cpu() for counter in self._tensors.counters]
        self._own_counters = torch.stack(counters).tolist() if counters else []

    @torch.no_grad()
    def exchange(self, weights: Sequence[float], *, crosses_nodes: bool = True) -> int:
        """Average the snapshots; every rank calls this with the same layout.

        The states are left alone until `store`.

        Args:
            weights: Weight of each rank, length world, not all 0; a rank of weight 0 adopts.
            crosses_nodes: As of `Averager.exchange`.

        Returns:
            The number of bytes exchanged.
        """
        weight = weights[self._collectives.rank] / sum(weights)
        self._largest: list[float] = []
        with self._collectives.scope(crosses_nodes=crosses_nodes):
            for flat in self._flats:
                flat.scale(weight)
                self._collectives.sum_(flat.average)
            if self._own_counters:
                own = self._own_counters if weight > 0.0 else [-math.inf] * len(self._own_counters)
                gathered = self._collectives.gather(own)
                self._largest = [max(values) for values in zip(*gathered, strict=True)]
        return sum(flat.average.nbytes for flat in self._flats)

    @torch.no_grad()
    def store(self) -> None:
        """Write the averages to the states; counters keep what they advanced since `load`.

        Moments are replaced even if they changed since: adding the difference, as to parameters,
        could make a second moment negative.
        """
        for flat in self._flats:
            flat.store()
        counters = zip(self._tensors.counters, self._largest, self._own_counters, strict=True)
        for counter, largest, own in counters:
            counter.add_(largest - own)
