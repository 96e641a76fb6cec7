"""The step loop of a state that is cut into partitions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
import pytest

from lightning_elche.partition import errors
from lightning_elche.partition.executor import PartitionTask, PartitionTaskResult, SerialExecutor
from lightning_elche.partition.plan import PartitionId, PartitionPlan
from lightning_elche.partition.plane import PartitionPlane
from lightning_elche.partition.plane_metrics import PhaseMetric
from lightning_elche.partition.policy import CheckpointPolicy
from lightning_elche.partition.replay import Replay
from lightning_elche.partition.rows import RowSpace, TensorEntry, TensorRows
from lightning_elche.partition.threaded import ThreadedExecutor
from lightning_elche.partition.worker import PartitionWorker
from tests.partition.planes import TIMES_2, doubling, x_of
from tests.partition.tables import PLAN, double, keep, table

GPU = PartitionWorker.cuda_device("gpu", 0)


@pytest.mark.parametrize("executor", [None, SerialExecutor(), ThreadedExecutor(2)])
def test_step_works_on_each_partition(executor: Any) -> None:
    """A step calls its phases for all rows once, with an executor or without."""
    plane = doubling(step=7)
    step = plane.step(executor)
    assert x_of(plane) == TIMES_2
    assert (step.step, plane.current_step, step.num_rows) == (7, 8, 10)
    assert [report.rows for report in step.reports] == [4, 3, 3]


def test_steps_do_not_depend_on_the_plan() -> None:
    """A state cut by any plan becomes the same by phases that work on rows."""
    plans = [PartitionPlan.single_process(), PLAN, PartitionPlan.row_ranges(10, 10)]
    values = set()
    for plan in plans:
        plane = doubling(plan=plan, replay=Replay("record"))
        plane.run(3)
        values.add(plane.recorded_replay)
    assert len(values) == 1


def test_run_makes_steps() -> None:
    """As many steps are made as asked for, one after the other."""
    plane = doubling()
    assert [step.step for step in plane.run(3)] == [0, 1, 2]
    assert x_of(plane)[1] == 8.0


def test_step_of_persisting_phases_does_not_advance() -> None:
    """A step that only stores leaves state and step as they are."""
    plane = PartitionPlane(table(), step=7, plan=PLAN)
    plane.add_phase("keep", keep, is_persisting=True)
    plane.step()
    assert plane.current_step == 7
    assert plane.state.fingerprint(7) == table().fingerprint(7)


def test_tensors_are_stepped_like_tables() -> None:
    """Rows of tensors go through partitions, executors and reassembly, too."""
    data = np.arange(40_000, dtype="<f4")
    space = RowSpace([TensorEntry("model", "w", "F32", (40_000,), 160_000)])
    state = TensorRows.of_tensors(space, {"model/w": data})
    plane = PartitionPlane(state, plan=PartitionPlan.balanced(space.row_bytes, 2))

    def halve(_context: Any, payload: Any) -> None:
        payload.state.tensor("model/w").view("<f4")[:] /= 2

    plane.add_phase("halve", halve)
    plane.step(ThreadedExecutor(2))
    assert np.array_equal(plane.state.tensor("model/w").view("<f4"), data / 2)


@pytest.mark.parametrize(
    ("executor", "text"),
    [
        (None, "at least one partition phase must be registered"),
        (SerialExecutor(), "at least one executor partition phase must be registered"),
    ],
)
def test_step_without_phases_is_refused(executor: Any, text: str) -> None:
    """There is something to do in a step."""
    with pytest.raises(errors.InvalidConfig) as caught:
        PartitionPlane(table()).step(executor)
    assert str(caught.value) == f"invalid control-plane configuration: {text}"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_retained": 0}, errors.InvalidConfig),
        ({"plan": PartitionPlan.row_ranges(9, 3)}, errors.CoverageMismatch),
        ({"workers": (PartitionWorker("a"), PartitionWorker("a"))}, errors.DuplicateWorker),
    ],
)
def test_plane_is_refused_with_a_bad_option(
    options: dict[str, Any], error: type[Exception]
) -> None:
    """Retention, plan and workers are checked before the first step."""
    with pytest.raises(error):
        PartitionPlane(table(), **options)


def test_retention_of_nothing_has_the_known_text() -> None:
    """At least one checkpoint is kept."""
    with pytest.raises(errors.InvalidConfig) as caught:
        PartitionPlane(table(), max_retained=0)
    assert str(caught.value).endswith("max_retained_checkpoints must be greater than zero")


def test_phase_gets_the_worker_of_its_partition() -> None:
    """The context names partition, rows, worker, backend and step."""
    seen: list[tuple[object, ...]] = []

    def note(context: Any, _payload: Any) -> None:
        seen.append((context.partition_id, context.row_end, context.worker, context.step))

    workers = [PartitionWorker(label) for label in "abc"]
    plane = PartitionPlane(table(), step=7, plan=PLAN.with_workers("abc"), workers=workers)
    plane.add_phase("note", note)
    plane.step()
    assert seen == [
        (PartitionId(0), 4, "a", 7),
        (PartitionId(1), 7, "b", 7),
        (PartitionId(2), 10, "c", 7),
    ]


def fail_in_partition_1(context: Any, payload: Any) -> None:
    payload.state.columns["x"][:] = -1.0
    if context.partition_id.value == 1:
        raise RuntimeError("boom")


class Wrong(SerialExecutor):
    """Changes what comes of a task."""

    def __init__(self, change: Callable[[PartitionTaskResult], PartitionTaskResult]) -> None:
        super().__init__()
        self._change = change

    def execute(self, tasks: Sequence[PartitionTask]) -> list[PartitionTaskResult]:
        return [self._change(result) for result in super().execute(tasks)]


def flip(result: PartitionTaskResult) -> PartitionTaskResult:
    result.payload.state.columns["x"].view(np.uint32)[0] ^= 1
    return result


def stale(result: PartitionTaskResult) -> PartitionTaskResult:
    return replace(result, payload=result.payload.at(0, result.payload.state))


class Forgetful(SerialExecutor):
    """Loses its last result."""

    def execute(self, tasks: Sequence[PartitionTask]) -> list[PartitionTaskResult]:
        return super().execute(tasks)[:-1]


@pytest.mark.parametrize(
    ("phase", "executor", "options", "error"),
    [
        (fail_in_partition_1, None, {}, errors.PartitionExecution),
        (fail_in_partition_1, SerialExecutor(), {}, errors.PhaseFailed),
        (fail_in_partition_1, ThreadedExecutor(), {}, errors.PhaseFailed),
        (double, Wrong(flip), {}, errors.ReassemblyError),
        (double, Wrong(stale), {}, errors.ReassemblyError),
        (double, Forgetful(), {}, errors.ResultCountMismatch),
        (double, None, {"plan": PLAN.with_workers("abc")}, errors.MissingPartitionWorker),
        (
            double,
            None,
            {"plan": PLAN.with_workers(["gpu"] * 3), "workers": [GPU]},
            errors.UnsupportedBackend,
        ),
    ],
)
def test_failed_step_changes_nothing(
    phase: Any, executor: Any, options: dict[str, Any], error: type[Exception]
) -> None:
    """After an error in a step, state, step, replay and metrics are those before it."""
    plane = PartitionPlane(table(), **({"plan": PLAN, "replay": Replay("record")} | options))
    plane.add_phase("phase", phase)
    before = plane.metrics()
    with pytest.raises(error):
        plane.step(executor)
    assert plane.metrics() == before
    assert plane.recorded_replay == ()
    assert plane.state.fingerprint(0) == table().fingerprint(0)


def test_phase_that_fails_without_executor_is_named_and_chained() -> None:
    """The phase's own error is the cause, with no other between."""
    plane = PartitionPlane(table(), plan=PLAN)
    plane.add_phase("explode", fail_in_partition_1)
    with pytest.raises(errors.PartitionExecution) as caught:
        plane.step()
    assert str(caught.value) == "partition PartitionId(1) phase explode failed: boom"
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_metrics_count_steps_rows_time_and_phases() -> None:
    """All counters of two steps with a checkpoint and a record are those of the work done."""
    clock = count(0, 1_000_000)
    plane = doubling(
        replay=Replay("record"),
        policy=CheckpointPolicy(every_steps=2),
        clock=lambda: next(clock),
    )
    plane.run(2)
    metrics = plane.metrics()
    assert (metrics.current_step, metrics.num_rows, metrics.num_bytes) == (2, 10, 160)
    assert (metrics.phase_count, metrics.partition_count) == (1, 3)
    assert (metrics.steps_completed, metrics.rows_processed) == (2, 20)
    # Two clock readings for each of three phases, and one at the end.
    assert (metrics.last_step_us, metrics.total_step_us) == (7000, 14000)
    assert (metrics.checkpoints_created, metrics.replay_fingerprints) == (1, 2)
    assert metrics.phases == (PhaseMetric(0, "double", 6, 1000, 6000),)
