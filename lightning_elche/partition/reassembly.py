"""Putting the parts of a state together: every check before anything is used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from lightning_elche.partition.errors import ReassemblyError
from lightning_elche.partition.executor import PartitionPayload, PartitionState, PartitionTask
from lightning_elche.partition.fnv import partition_binding
from lightning_elche.partition.plan import PartitionPlan

__all__ = ["reassemble"]

S = TypeVar("S", bound=PartitionState)


def reassemble(
    parts: Sequence[PartitionPayload[S]],
    plan: PartitionPlan,
    *,
    like: S,
    tasks: Sequence[PartitionTask] = (),
) -> S:
    """Return the state that parts make up.

    Args:
        parts: The parts, in any order.
        plan: The plan that they were cut by.
        like: The state that they are part of, before any task.
        tasks: What they are the results of, if of tasks; then they must fit them, too.

    Raises:
        ReassemblyError: If they do not make up a state; it says what is wrong with which part.
    """
    ordered = sorted(parts, key=lambda part: part.assignment.partition_id)
    if not ordered:
        raise ReassemblyError("at least one partition checkpoint is required")
    by_id = {task.context.partition_id: task for task in tasks}
    step = tasks[0].result_step if tasks else ordered[0].step
    num_rows = 0
    for part in ordered:
        _check_place(part, step, num_rows)
        task = by_id.get(part.assignment.partition_id)
        if task is None:
            _check_schema(part, ordered[0].state)
        else:
            _check_against_task(part, task, like)
        _check_content(part, plan.sha256)
        if task is not None:
            _check_kept(part, task)
        num_rows += part.state.num_rows
    if tuple(part.assignment for part in ordered) != plan.materialized(num_rows):
        raise ReassemblyError("partition checkpoints do not match the active partition plan")
    return like.concat([part.state for part in ordered])


def _fail(part: PartitionPayload[S], reason: str) -> ReassemblyError:
    return ReassemblyError(f"partition {part.assignment.partition_id} {reason}")


def _check_place(part: PartitionPayload[S], step: int, row_start: int) -> None:
    assignment, rows = part.assignment, part.state.num_rows
    if part.step != step:
        raise _fail(part, f"captured step {part.step}, expected {step}")
    if assignment.row_start != row_start:
        raise _fail(part, f"starts at row {assignment.row_start}, expected {row_start}")
    if assignment.num_rows != rows:
        raise _fail(
            part,
            f"has assignment length {assignment.num_rows} but checkpoint contains {rows} rows",
        )


def _check_schema(part: PartitionPayload[S], first: S) -> None:
    if part.state.schema != first.schema:
        raise _fail(part, "schema does not match the first partition")


def _check_against_task(part: PartitionPayload[S], task: PartitionTask, like: S) -> None:
    """Compare with the state that the task was cut from: the task's own copy may have changed."""
    if part.state.schema != like.schema:
        raise _fail(part, "schema does not match its task")
    rows = slice(task.context.row_start, task.context.row_end)
    if not np.array_equal(part.state.row_ids, like.row_ids[rows]):
        raise _fail(part, "row ids do not match its task")


def _check_content(part: PartitionPayload[S], plan_sha256: str) -> None:
    fingerprint = part.state.fingerprint(part.step)
    if fingerprint != part.fingerprint:
        raise _fail(part, "fingerprint mismatch")
    place = part.assignment, part.step
    if partition_binding(plan_sha256, *place, fingerprint.lanes) != part.binding:
        raise _fail(part, "binding mismatch")


def _check_kept(part: PartitionPayload[S], task: PartitionTask) -> None:
    if task.is_persisting and part.fingerprint.lanes != task.payload.fingerprint.lanes:
        raise _fail(part, "lanes differ from those of the snapshot")
