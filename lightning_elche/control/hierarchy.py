"""The hierarchy of nodes: which averaging events cross them, and what ranks weigh in one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypedDict

from lightning_elche.control.guard import GuardAction

__all__ = ["Hierarchy", "HierarchyState"]

MAX_EVERY = 64


class HierarchyState(TypedDict):
    """What `Hierarchy.state_dict` returns; JSON-serialisable."""

    every: int


class Hierarchy:
    """Averages inside nodes at every event and across nodes at every k-th one.

    Crossing nodes costs more where the network between them is slow. `every` is the smallest k for
    which the mean cost of an event stays within the overhead target,

        (inside_ms + (across_ms - inside_ms) / k) / window_ms <= overhead_target,

    or half of the target where exchanging inside a node alone takes more than the other half. It
    grows to at most its double at a time, shrinks by one, and is 1 where all ranks share a node.

    Args:
        nodes: The node of each rank, length world.
        overhead_target: Share of a window that exchanging parameters may cost.

    Example:
        >>> hierarchy = Hierarchy([0, 0, 1, 1], overhead_target=0.1)
        >>> costs = {"window_ms": 100.0, "action": GuardAction.STABLE}
        >>> hierarchy.report([8.0] * 4, crossed=True, transfer_ms=0.0, **costs)
        >>> hierarchy.report([8.0] * 4, crossed=True, transfer_ms=20.0, **costs)
        >>> hierarchy.every
        2
    """

    def __init__(self, nodes: Sequence[int], *, overhead_target: float) -> None:
        self.nodes = tuple(nodes)
        self._target = overhead_target
        # The weight of each node in the events since nodes were last crossed.
        self._earlier: dict[int, float] = {}
        self.reset()

    def reset(self) -> None:
        """Forget everything measured."""
        self._every = 1
        self._begin()

    @property
    def every(self) -> int:
        """Events from one that crosses nodes to the next."""
        return self._every

    @property
    def crosses_next(self) -> bool:
        """Whether the event that ends the present window crosses nodes."""
        return self._num_inside + 1 >= self._every

    @property
    def has_crossed(self) -> bool:
        """Whether the last event did; true before the first."""
        return self._num_inside == 0

    def weights(self, own: Sequence[float], rank: int, *, crosses: bool) -> list[float]:
        """Return what each rank weighs in an average that `rank` takes part in, length world.

        Inside a node these are its ranks' own weights. Across nodes a node weighs all that its
        ranks weighed since nodes were last crossed, so that the result is the mean of the nodes'
        means, and no window counts for less because others followed it.

        Args:
            own: The weight of each rank in this window.
            rank: The rank that asks.
            crosses: Whether the event crosses nodes.
        """
        nodes = self.nodes
        if not crosses:
            return [
                weight if node == nodes[rank] else 0.0
                for weight, node in zip(own, nodes, strict=True)
            ]
        in_window = self._by_node(own)
        weights = []
        for weight, node in zip(own, nodes, strict=True):
            earlier = self._earlier.get(node, 0.0)
            if in_window[node] > 0.0:
                weights.append(weight * (1.0 + earlier / in_window[node]))
            else:  # none of them has stepped since they last averaged: they are equal
                weights.append(earlier / nodes.count(node))
        return weights

    def report(
        self,
        weights: Sequence[float],
        *,
        crossed: bool,
        transfer_ms: float,
        window_ms: float,
        action: GuardAction,
    ) -> None:
        """Take in one averaging event.

        Args:
            weights: The weight of each rank in the window before it, length world.
            crossed: Whether it crossed nodes.
            transfer_ms: What the event before this one cost.
            window_ms: How long the window was.
            action: What the guard decided; `every` does not grow unless it is STABLE, and is halved
                by TIGHTEN.
        """
        if not self.has_crossed:
            self._inside_ms = transfer_ms
        elif self._num_events > 0 and window_ms > 0.0:
            self._tune(transfer_ms, window_ms, may_grow=action is GuardAction.STABLE)
        if action is GuardAction.TIGHTEN:
            self._every = math.ceil(self._every / 2)
        self._num_events += 1
        if crossed:
            self._num_inside = 0
            self._earlier.clear()
            return
        self._num_inside += 1
        for node, weight in self._by_node(weights).items():
            self._earlier[node] = self._earlier.get(node, 0.0) + weight

    def state_dict(self) -> HierarchyState:
        """Return what `load_state_dict` needs, at an event that crosses nodes."""
        return HierarchyState(every=self._every)

    def load_state_dict(self, state: HierarchyState) -> None:
        """Continue from `state`, unless all ranks share a node now."""
        self._begin()
        if len(set(self.nodes)) > 1:
            self._every = state["every"]

    def __repr__(self) -> str:
        return f"Hierarchy(nodes={list(self.nodes)}, every={self._every})"

    def _begin(self) -> None:
        self._num_events = 0
        self._num_inside = 0  # events since nodes were last crossed
        self._inside_ms = 0.0
        self._earlier.clear()

    def _by_node(self, weights: Sequence[float]) -> dict[int, float]:
        sums = dict.fromkeys(self.nodes, 0.0)
        for node, weight in zip(self.nodes, weights, strict=True):
            sums[node] += weight
        return sums

    def _tune(self, across_ms: float, window_ms: float, *, may_grow: bool) -> None:
        if len(set(self.nodes)) == 1:
            return
        whole = self._target * window_ms
        left = max(whole - self._inside_ms, whole / 2)
        needed = math.ceil((across_ms - self._inside_ms) / left)
        if needed > self._every and may_grow:
            self._every = min(needed, 2 * self._every, MAX_EVERY)
        elif needed < self._every:
            self._every = max(1, self._every - 1)
