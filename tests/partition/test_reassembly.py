"""Putting the parts of a state together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.partition.columns import ColumnState
from lightning_elche.partition.errors import ReassemblyError
from lightning_elche.partition.executor import PartitionPayload, PartitionTask, run_task
from lightning_elche.partition.plan import PartitionId, PartitionPlan
from lightning_elche.partition.reassembly import reassemble
from lightning_elche.partition.replay import ReplayFingerprint
from tests.partition.tables import DOUBLE, KEEP, PLAN, payloads, table, tasks

Parts = list[PartitionPayload[ColumnState]]


def results(*given: PartitionTask) -> Parts:
    """Return what comes of tasks."""
    return [run_task(task).payload for task in given or tasks()]


def text_of(parts: Parts, given: list[PartitionTask] | None = None) -> str:
    """Return by what error parts are refused."""
    with pytest.raises(ReassemblyError) as caught:
        reassemble(parts, PLAN, like=table(), tasks=given or ())
    return str(caught.value).removeprefix("partition checkpoint error: ")


@given(order=st.permutations(range(3)))
def test_parts_in_any_order_make_up_the_state(order: list[int]) -> None:
    """Parts are put together by their ids."""
    parts = payloads()
    state = reassemble([parts[i] for i in order], PLAN, like=table())
    assert state.fingerprint(7) == table().fingerprint(7)


@given(rows=st.integers(1, 30), count=st.integers(1, 8))
def test_parts_of_any_plan_make_up_the_state(rows: int, count: int) -> None:
    """What a plan cuts is put together again."""
    plan = PartitionPlan.row_ranges(rows, count)
    state = reassemble(payloads(table(rows), plan=plan), plan, like=table(rows))
    assert state.fingerprint(7) == table(rows).fingerprint(7)


def test_results_of_tasks_make_up_the_next_state() -> None:
    """What phases have changed is in the state, at the step after."""
    state = reassemble(results(), PLAN, like=table(), tasks=tasks())
    assert state.columns["x"].tolist() == [2.0 * i for i in range(10)]


def test_no_parts_are_refused() -> None:
    """There is at least one part."""
    assert text_of([]) == "at least one partition checkpoint is required"


def test_part_of_another_step_is_refused() -> None:
    """All parts are of the step of the first."""
    parts = [payloads()[0], payloads(step=8)[1], payloads()[2]]
    assert text_of(parts) == "partition PartitionId(1) captured step 8, expected 7"


def test_stale_parts_are_refused() -> None:
    """Parts that are all of the step before the result's are not taken for results."""
    assert text_of(payloads(), tasks()) == "partition PartitionId(0) captured step 7, expected 8"


def test_persisted_parts_of_the_next_step_are_refused() -> None:
    """What is only stored does not advance."""
    text = text_of(results(*tasks(DOUBLE)), tasks(KEEP))
    assert text == "partition PartitionId(0) captured step 8, expected 7"


def test_missing_part_is_refused() -> None:
    """Each part starts where the one before it ends."""
    text = text_of([payloads()[0], payloads()[2]])
    assert text == "partition PartitionId(2) starts at row 7, expected 4"
    assert text_of(payloads()[1:]) == "partition PartitionId(1) starts at row 4, expected 0"


def test_repeated_part_is_refused() -> None:
    """A part that is there twice does not start behind itself."""
    parts = payloads()
    text = text_of([parts[0], parts[1], parts[1]])
    assert text == "partition PartitionId(1) starts at row 4, expected 7"


def test_missing_last_part_is_refused() -> None:
    """The parts are those of the plan."""
    text = "partition checkpoints do not match the active partition plan"
    assert text_of(payloads()[:2]) == text


def test_part_of_other_rows_is_refused() -> None:
    """A part has as many rows as its assignment."""
    parts = payloads()
    parts[1] = replace(parts[1], state=table().slice(4, 6))
    assert text_of(parts) == (
        "partition PartitionId(1) has assignment length 3 but checkpoint contains 2 rows"
    )


def renamed(state: ColumnState) -> ColumnState:
    return ColumnState(state.ids, {"z": state.columns["x"], "y": state.columns["y"]})


def reordered(state: ColumnState) -> ColumnState:
    return ColumnState(state.ids, dict(reversed(state.columns.items())))


def without_y(state: ColumnState) -> ColumnState:
    return ColumnState(state.ids, {"x": state.columns["x"]})


def with_other_ids(state: ColumnState) -> ColumnState:
    return ColumnState(state.ids[::-1].copy(), state.columns)


@pytest.mark.parametrize("change", [renamed, reordered, without_y])
def test_part_of_other_columns_is_refused(change: Any) -> None:
    """All parts have the columns of the first; a result has those of its task."""
    parts = payloads()
    parts[1] = parts[1].at(7, change(parts[1].state))
    assert text_of(parts) == ("partition PartitionId(1) schema does not match the first partition")
    changed = [part.at(8, change(part.state)) for part in results()]
    assert text_of(changed, tasks()) == "partition PartitionId(0) schema does not match its task"


def test_result_with_other_row_ids_is_refused() -> None:
    """Rows keep their ids and their order."""
    parts = results()
    parts[1] = parts[1].at(8, with_other_ids(parts[1].state))
    assert text_of(parts, tasks()) == "partition PartitionId(1) row ids do not match its task"


def test_ids_changed_in_place_are_refused() -> None:
    """A phase cannot change ids by changing those that its task holds."""
    given = tasks()
    given[1].payload.state.ids[0] = 999
    text = text_of(results(*given), given)
    assert text == "partition PartitionId(1) row ids do not match its task"


def test_part_that_changed_on_its_way_is_refused() -> None:
    """A changed bit of the rows is found."""
    parts = payloads()
    parts[1].state.columns["y"].view(np.uint32)[2] ^= 1
    assert text_of(parts) == "partition PartitionId(1) fingerprint mismatch"


@pytest.mark.parametrize(
    "change",
    [{"step": 6}, {"value": 0}, {"lanes": (0, 0)}],
    ids=["step", "value", "lanes"],
)
def test_part_with_another_fingerprint_is_refused(change: dict[str, Any]) -> None:
    """The fingerprint that a part claims is that of its rows, in all it holds."""
    parts = payloads()
    parts[1] = replace(parts[1], fingerprint=replace(parts[1].fingerprint, **change))
    assert isinstance(parts[1].fingerprint, ReplayFingerprint)
    assert text_of(parts) == "partition PartitionId(1) fingerprint mismatch"


def test_part_of_another_plan_is_refused() -> None:
    """A part that was cut by another plan is not bound to this one, though its rows are right."""
    labelled = PLAN.with_workers(["a", "b", "c"])
    parts = payloads()
    parts[1] = replace(payloads(plan=labelled)[1], assignment=PLAN.assignments[1])
    assert text_of(parts) == "partition PartitionId(1) binding mismatch"


def test_parts_with_other_ids_are_refused() -> None:
    """The assignments are those of the plan, ids and workers included."""
    parts = []
    for part in payloads():
        assignment = replace(part.assignment, partition_id=PartitionId(5 + len(parts)))
        parts.append(PartitionPayload.of_state(part.state, assignment, 7, PLAN.sha256))
    text = "partition checkpoints do not match the active partition plan"
    assert text_of(parts) == text
    assert text_of([part.at(8, part.state) for part in parts], tasks()) == text


def test_persisting_task_that_changed_rows_is_refused() -> None:
    """What is only stored comes back as it was taken."""
    given = tasks(KEEP)
    given[2].payload.state.columns["x"][0] = 3.0
    text = text_of(results(*given), given)
    assert text == "partition PartitionId(2) lanes differ from those of the snapshot"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"step": 9, "row": 5}, "captured step 9"),
        ({"row": 5, "rows": 2}, "starts at row 5"),
        ({"rows": 2, "schema": True}, "assignment length"),
        ({"schema": True, "bit": True}, "schema does not match"),
        ({"bit": True, "binding": 0}, "fingerprint mismatch"),
        ({"binding": 0, "worker": "a"}, "binding mismatch"),
    ],
)
def test_first_fault_of_a_part_is_the_one_named(change: dict[str, Any], named: str) -> None:
    """Of two faults, the one that is checked first is named."""
    parts = payloads()
    part = parts[1]
    state = table().slice(4, 4 + change["rows"]) if "rows" in change else part.state
    if "schema" in change:
        state = renamed(state)
    if "row" in change:
        shifted = replace(part.assignment, row_start=5, row_end=8)
        part = replace(part, assignment=shifted)
    if "worker" in change:
        part = replace(part, assignment=replace(part.assignment, worker="a"))
    part = replace(part, state=state, step=change.get("step", 7))
    parts[1] = replace(part, binding=change.get("binding", part.binding))
    if "bit" in change:
        next(iter(parts[1].state.columns.values())).view(np.uint32)[0] ^= 1
    assert named in text_of(parts)
