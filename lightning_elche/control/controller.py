"""The replicated controller: the same reports give the same plan on every rank."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypedDict

from lightning_elche.control.cadence import CadenceConfig, ElChe, ElCheState
from lightning_elche.control.chunks import ChunkConfig
from lightning_elche.control.guard import ConvergenceGuard, GuardAction, GuardConfig
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


class Controller:
    """Turns the reports of an averaging event into the plan of the next window.

    Every rank owns one and feeds it the same gathered reports, so that no coordinator is needed.

    Args:
        world_size: Number of ranks, at least 2.
        cadence: Limits of the cadence.
        guard: Limits of the divergence; with policy "sync" replicas have no time to diverge.
        policy: What ends a window.
        chunks: Limits of the look into the next epoch.
    """

    def __init__(
        self,
        world_size: int,
        *,
        cadence: CadenceConfig | None = None,
        guard: GuardConfig | None = None,
        policy: Policy = "cadence",
        chunks: ChunkConfig | None = None,
    ) -> None:
        self._policy = policy
        self.elche = ElChe(world_size, cadence)
        self.guard = ConvergenceGuard(guard)
        self.overshoot = Overshoot(chunks)
        self.reset()

    def reset(self) -> None:
        """Forget everything measured."""
        self.elche.reset()
        self.guard.reset()
        self.overshoot.reset()
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
        )

    def open_epoch(self, batches: int) -> Plan:
        """Take in that all ranks begin an epoch.

        Args:
            batches: Batches that they train in it together, 0 where each has a stream of its own.
        """
        self.overshoot.open_epoch(batches)
        return self.plan

    def report(self, reports: Sequence[Report]) -> Plan:
        """Take in one averaging event.

        The cost of an event is known only after its reports are sent; the reports carry that of
        the event before, and the anchor is tuned by it one event late.

        Args:
            reports: The reports of all ranks, in rank order.
        """
        divergence = divergence_of(reports)
        if not math.isnan(divergence) and self._policy != "sync":
            self._action = self.guard.report(divergence)
        self.elche.report(
            compute_ms=[report.compute_ms for report in reports],
            steps=[report.batches for report in reports],
            transfer_ms=max(report.transfer_ms for report in reports),
            hold=self._action is not GuardAction.STABLE,
        )
        if self._action is GuardAction.TIGHTEN:
            self.elche.tighten(TIGHTEN_FACTOR)
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
        )

    def load_state_dict(self, state: ControllerState) -> None:
        """Continue from `state`."""
        self._index = state["index"]
        self.elche.load_state_dict(state["cadence"])
        self.guard.load_state_dict(state["guard"])
        self.overshoot.load_state_dict(state["overshoot"])

    def __repr__(self) -> str:
        parts = f"{self.elche!r}, {self.guard!r}, {self.overshoot!r}"
        return f"Controller(index={self._index}, {parts})"
