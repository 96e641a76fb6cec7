"""The exchange of everything that makes up a replica: parameters, buffers, optimizer states."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from lightning_elche.control.reports import Report
from lightning_elche.distributed.averager import NO_EXCHANGE, Averager, Exchange
from lightning_elche.distributed.optimizer_averager import OptimizerAverager

__all__ = ["ReplicaExchange"]


class ReplicaExchange:
    """Averages replicas in three steps, of which only the first and the last touch the model.

    Args:
        averager: Parameters and buffers.
        optimizer_averager: States of optimizers; `None` to keep them local.
    """

    def __init__(
        self, averager: Averager, optimizer_averager: OptimizerAverager | None = None
    ) -> None:
        self.averager = averager
        self._states = optimizer_averager
        self.has_average = False  # at the last exchange

    def optimizer_layout(self) -> int:
        """Return a number that is equal on ranks whose optimizer states can be averaged."""
        return self._states.layout() if self._states is not None else 0

    def load(self, index: int) -> None:
        """Take a snapshot of the replica for averaging event `index`."""
        self.averager.load()
        self._due_states = None
        if self._states is not None and self._states.is_due(index):
            self._due_states = self._states
            self._states.load()

    def exchange(
        self, reports: Sequence[Report], weights: Sequence[float], *, crosses_nodes: bool
    ) -> Exchange:
        """Average the snapshots.

        Nothing is exchanged where no rank weighs anything.

        Args:
            reports: The reports of all ranks.
            weights: The weight of each rank, length world.
            crosses_nodes: As of `Averager.exchange`.
        """
        self.has_average = any(weights)
        # States of different layouts (a rank has not stepped some parameter yet) stay local.
        if not self.has_average or len({report.optimizer_layout for report in reports}) > 1:
            self._due_states = None
        if not self.has_average:
            return NO_EXCHANGE
        # Order on every rank: parameters, optimizer states.
        exchange = self.averager.exchange(weights, crosses_nodes=crosses_nodes)
        if self._due_states is not None:
            more_bytes = self._due_states.exchange(weights, crosses_nodes=crosses_nodes)
            exchange = replace(exchange, exchanged_bytes=exchange.exchanged_bytes + more_bytes)
        return replace(exchange, ended_ns=time.perf_counter_ns())

    def store(self, *, adds_difference: bool) -> None:
        """Write what was exchanged to the replica.

        Args:
            adds_difference: Keep the steps made since `load`, and add what averaging changed.
        """
        if self.has_average and adds_difference:
            self.averager.add_difference()
        elif self.has_average:
            self.averager.store()
        if self._due_states is not None:
            self._due_states.store()
