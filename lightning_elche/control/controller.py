"""The replicated controller: the same reports give the same plan on every rank."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypedDict

from lightning_elche.control.cadence import CadenceConfig, ElChe, ElCheState
from lightning_elche.control.chunks import ChunkConfig
from lightning_elche.control.guard import ConvergenceGuard, GuardAction, GuardConfig
from lightning_elche.control.hierarchy import Hierarchy, HierarchyState
from lightning_elche.control.overshoot import Overshoot, OvershootState
from lightning_elche.control.reports import Report, divergence_of
from lightning_elche.control.schedule import Plan, Policy

__all__ = ["Controller", "ControllerState"]

TIGHTEN_FACTOR = 0.5


class ControllerState(TypedDict):
    """What `Controller.state_dict` returns; JSON-serialisable."""

    index: int
    cadence: ElCheState
    guard: dict[str, list[float]]
    overshoot: OvershootState
    hierarchy: HierarchyState


class Controller:
    """Turns the reports of an averaging event into the plan of the next window.

    Every rank owns one and feeds it the same gathered reports, so that no coordinator is needed.

    Args:
        world_size: Number of ranks, at least 2.
        cadence: Limits of the cadence.
        guard: Limits of the divergence; with policy "sync" replicas have no time to diverge.
        policy: What ends a window.
        chunks: Limits of the look into the next epoch.
        nodes: The node of each rank, length world. Default: all share one.
    """

    def __init__(
        self,
        world_size: int,
        *,
        cadence: CadenceConfig | None = None,
        guard: GuardConfig | None = None,
        policy: Policy = "cadence",
        chunks: ChunkConfig | None = None,
        nodes: Sequence[int] | None = None,
    ) -> None:
        self._policy = policy
        self.elche = ElChe(world_size, cadence)
        self.guard = ConvergenceGuard(guard)
        self.overshoot = Overshoot(chunks)
        target = self.elche.config.overhead_target
        self.hierarchy = Hierarchy(nodes or [0] * world_size, overhead_target=target)
        self.reset()

    def reset(self) -> None:
        """Forget everything measured."""
        self.elche.reset()
        self.guard.reset()
        self.overshoot.reset()
        self.hierarchy.reset()
        self._index = 0
        self._action = GuardAction.STABLE

    @property
    def action(self) -> GuardAction:
        """What the guard decided at the last event."""
        return self._action

    @property
    def plan(self) -> Plan:
        """The plan of the present window."""
        elche = self.elche
        return Plan(
            index=self._index,
            anchor=elche.anchor,
            local_steps=elche.local_steps,
            ms_per_batch=elche.ms_per_batch,
            shares=elche.shares,
            slowest=elche.slowest,
            is_calibrated=elche.is_calibrated,
            policy=self._policy,
            max_overshoot=self.overshoot.value,
            crosses_nodes=self.hierarchy.crosses_next,
        )

    def open_epoch(self, batches: int) -> Plan:
        """Take in that all ranks begin an epoch.

        Args:
            batches: Batches that they train in it together, 0 where each has a stream of its own.
        """
        self.overshoot.open_epoch(batches)
        return self.plan

    def report(self, reports: Sequence[Report], *, crossed: bool = True) -> Plan:
        """Take in one averaging event.

        The cost of an event is known only after its reports are sent; the reports carry that of
        the event before, and the anchor is tuned by it one event late.

        Args:
            reports: The reports of all ranks, in rank order.
            crossed: Whether the event crossed nodes.
        """
        elche, hierarchy = self.elche, self.hierarchy
        was_inside, is_spaced = not hierarchy.has_crossed, hierarchy.every > 1
        self._take_in_divergence(divergence_of(reports))
        compute_ms = [report.compute_ms for report in reports]
        transfer_ms = max(report.transfer_ms for report in reports)
        hierarchy.report(
            [report.weight for report in reports],
            crossed=crossed,
            transfer_ms=transfer_ms,
            window_ms=max(*compute_ms, elche.anchor_wall_ms),
            action=self._action,
        )
        # What an event that crosses nodes costs sets how many do, unless all of them do.
        tunes_anchor = was_inside or hierarchy.every == 1
        is_held = any(report.holds_anchor for report in reports)
        elche.report(
            compute_ms=compute_ms,
            # What a batch takes that was not trained to the end says nothing of the others.
            steps=[report.batches - report.skipped for report in reports],
            transfer_ms=transfer_ms if tunes_anchor else 0.0,
            hold=is_held or self._action is not GuardAction.STABLE,
        )
        if self._action is GuardAction.TIGHTEN and not is_spaced:
            elche.tighten(TIGHTEN_FACTOR)
        self.overshoot.report(self._action)
        self._index += 1
        return self.plan

    def state_dict(self) -> ControllerState:
        """Return everything that `load_state_dict` needs."""
        return ControllerState(
            index=self._index,
            cadence=self.elche.state_dict(),
            guard=self.guard.state_dict(),
            overshoot=self.overshoot.state_dict(),
            hierarchy=self.hierarchy.state_dict(),
        )

    def load_state_dict(self, state: ControllerState) -> None:
        """Continue from `state`."""
        self._index = state["index"]
        self.elche.load_state_dict(state["cadence"])
        self.guard.load_state_dict(state["guard"])
        self.overshoot.load_state_dict(state["overshoot"])
        self.hierarchy.load_state_dict(state["hierarchy"])

    def __repr__(self) -> str:
        parts = f"{self.elche!r}, {self.guard!r}, {self.overshoot!r}"
        return f"Controller(index={self._index}, {parts})"

    def _take_in_divergence(self, divergence: float) -> None:
        if not self.hierarchy.has_crossed:
            # Inside a node replicas are closer; and the last action, if it was one, is taken.
            self._action = min(self._action, GuardAction.HOLD)
        elif not math.isnan(divergence) and self._policy != "sync":
            self._action = self.guard.report(divergence)
