"""Small states, payloads and tasks to test with."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_elche.partition.columns import ColumnState
from lightning_elche.partition.executor import (
    PartitionContext,
    PartitionPayload,
    PartitionPhase,
    PartitionTask,
)
from lightning_elche.partition.plan import PartitionPlan
from lightning_elche.partition.worker import LOCAL_CPU, PartitionBackend

__all__ = ["DOUBLE", "KEEP", "PLAN", "double", "keep", "payloads", "table", "tasks"]

PLAN = PartitionPlan.row_ranges(10, 3)


def table(rows: int = 10) -> ColumnState:
    """Return a table whose x are the row numbers and whose y are 0.5."""
    return ColumnState(range(100, 100 + rows), {"x": list(range(rows)), "y": [0.5] * rows})


def double(_context: PartitionContext, payload: PartitionPayload[ColumnState]) -> None:
    """Double x."""
    payload.state.columns["x"][:] *= 2


def keep(_context: PartitionContext, _payload: PartitionPayload[ColumnState]) -> None:
    """Change nothing."""


DOUBLE = PartitionPhase("double", double)
KEEP = PartitionPhase("keep", keep, is_persisting=True)


def payloads(
    state: ColumnState | None = None, *, plan: PartitionPlan = PLAN, step: int = 7
) -> list[PartitionPayload[ColumnState]]:
    """Return the parts of a table."""
    state = state or table()
    return [
        PartitionPayload.of_state(state.slice(a.row_start, a.row_end), a, step, plan.sha256)
        for a in plan.materialized(state.num_rows)
    ]


def tasks(
    *phases: PartitionPhase,
    backends: Sequence[PartitionBackend] = (LOCAL_CPU,) * 3,
    step: int = 7,
) -> list[PartitionTask]:
    """Return a task for each part of a table, by default of doubling it."""
    made = []
    for part, backend in zip(payloads(step=step), backends, strict=True):
        one = part.assignment
        place = one.partition_id, one.row_start, one.row_end, one.worker
        context = PartitionContext(*place, backend, step)
        made.append(PartitionTask(context, part, phases or (DOUBLE,)))
    return made
