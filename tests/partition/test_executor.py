"""Tasks, and carrying them out one by one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

import pytest

from lightning_elche.partition import errors
from lightning_elche.partition.executor import (
    PartitionPhase,
    PartitionTask,
    PartitionTaskResult,
    SerialExecutor,
    dispatch,
    run_task,
)
from lightning_elche.partition.plan import PartitionId
from lightning_elche.partition.worker import LOCAL_CPU, PartitionBackend
from tests.partition.tables import DOUBLE, KEEP, tasks

GPU = PartitionBackend("cuda_device", 0)


def fail(_context: Any, _payload: Any) -> None:
    raise KeyError("boom")


def test_phases_are_called_in_order_with_context_and_payload() -> None:
    """Each phase gets the partition's place and what the phases before have made of its rows."""
    calls: list[tuple[object, ...]] = []

    def note(context: Any, payload: Any) -> None:
        calls.append((context.step, context.row_start, payload.state.columns["x"].tolist()))

    run_task(tasks(PartitionPhase("note", note), DOUBLE, PartitionPhase("note", note))[1])
    assert calls == [(7, 4, [4.0, 5.0, 6.0]), (7, 4, [8.0, 10.0, 12.0])]


def test_result_is_of_the_next_step_if_phases_advance() -> None:
    """Rows that phases may change are those of the step after, with a fingerprint of it."""
    payload = run_task(tasks(KEEP, DOUBLE)[1]).payload
    assert (payload.step, payload.fingerprint.step) == (8, 8)
    assert payload.fingerprint == payload.state.fingerprint(8)


def test_result_is_of_the_same_step_if_phases_persist() -> None:
    """Rows that are only stored stay those of the step, bound as before."""
    task = tasks(KEEP)[1]
    payload = run_task(task).payload
    assert (payload.step, payload.binding) == (7, task.payload.binding)


def test_each_phase_is_reported() -> None:
    """A report says which phase ran for which rows, where, and how long it took."""
    clock = count(0, 2_000_000)
    reports = run_task(tasks(KEEP, DOUBLE)[1], lambda: next(clock)).reports
    assert [(r.index, r.name, r.elapsed_us) for r in reports] == [
        (0, "keep", 2000),
        (1, "double", 2000),
    ]
    assert (reports[0].partition_id, reports[0].rows) == (PartitionId(1), 3)
    assert (reports[0].worker, reports[0].backend) == (None, LOCAL_CPU)


def test_failed_phase_is_named_and_chained() -> None:
    """The error of a phase is the cause of one that names partition and phase."""
    with pytest.raises(errors.PhaseFailed) as caught:
        run_task(tasks(DOUBLE, PartitionPhase("fail", fail))[2])
    assert str(caught.value) == "partition PartitionId(2) phase fail failed: 'boom'"
    assert isinstance(caught.value.__cause__, KeyError)


def test_serial_executor_keeps_the_order() -> None:
    """Tasks are carried out, and their results returned, in the order given."""
    called: list[int] = []

    def note(context: Any, _payload: Any) -> None:
        called.append(context.partition_id.value)

    given = tasks(PartitionPhase("note", note))[::-1]
    results = dispatch(SerialExecutor(), given)
    assert called == [2, 1, 0]
    assert [r.payload.assignment.partition_id.value for r in results] == [2, 1, 0]


def test_serial_executor_ends_at_the_first_error() -> None:
    """After an error no further task is begun."""
    called: list[int] = []

    def note(context: Any, _payload: Any) -> None:
        called.append(context.partition_id.value)
        if context.partition_id.value == 1:
            raise RuntimeError("boom")

    with pytest.raises(errors.PhaseFailed):
        SerialExecutor().execute(tasks(PartitionPhase("note", note)))
    assert called == [0, 1]


def test_unsupported_backend_is_refused_before_anything_runs() -> None:
    """One task that an executor does not support keeps all from being carried out."""
    called: list[int] = []

    def note(context: Any, _payload: Any) -> None:
        called.append(context.partition_id.value)

    given = tasks(PartitionPhase("note", note), backends=(LOCAL_CPU, LOCAL_CPU, GPU))
    with pytest.raises(errors.UnsupportedBackend) as caught:
        dispatch(SerialExecutor(), given)
    assert called == []
    assert str(caught.value) == (
        "partition PartitionId(2) needs backend cuda_device:0, "
        "which SerialExecutor does not support"
    )


class Careless(SerialExecutor):
    """Returns some results only, or some twice."""

    def __init__(self, picks: slice, times: int = 1) -> None:
        super().__init__()
        self._picks, self._times = picks, times

    def execute(self, tasks: Sequence[PartitionTask]) -> list[PartitionTaskResult]:
        return super().execute(tasks)[self._picks] * self._times


@pytest.mark.parametrize(
    ("executor", "actual"),
    [
        (Careless(slice(2)), 2),
        (Careless(slice(0)), 0),
        (Careless(slice(2), 2), 4),
    ],
)
def test_other_number_of_results_is_refused(executor: Careless, actual: int) -> None:
    """There is one result for each task."""
    with pytest.raises(errors.ResultCountMismatch) as caught:
        dispatch(executor, tasks())
    assert (caught.value.expected, caught.value.actual) == (3, actual)
