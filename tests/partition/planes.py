"""Planes whose steps double a table that is cut into three."""

from __future__ import annotations

from typing import Any

from lightning_elche.partition.columns import ColumnState
from lightning_elche.partition.plane import PartitionPlane
from lightning_elche.partition.replay import Replay, ReplayFingerprint
from tests.partition.tables import PLAN, double, table

__all__ = ["TIMES_2", "doubling", "recorded", "x_of"]

TIMES_2 = [2.0 * i for i in range(10)]


def doubling(state: ColumnState | None = None, **options: Any) -> PartitionPlane[ColumnState]:
    """Return a plane in three partitions whose steps double x."""
    plane = PartitionPlane(state or table(), **({"plan": PLAN} | options))
    plane.add_phase("double", double)
    return plane


def x_of(plane: PartitionPlane[ColumnState]) -> list[float]:
    return [float(value) for value in plane.state.columns["x"]]


def recorded(steps: int) -> list[ReplayFingerprint]:
    """Return the record of a run of doubling steps."""
    plane = doubling(replay=Replay("record"))
    plane.run(steps)
    return list(plane.recorded_replay)
