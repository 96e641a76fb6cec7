"""Tasks: a partition, what is done to it, and who carries that out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from lightning_elche.partition.errors import (
    PhaseFailed,
    ResultCountMismatch,
    UnsupportedBackend,
)
from lightning_elche.partition.fnv import partition_binding

if TYPE_CHECKING:
    from lightning_elche.partition.plan import PartitionAssignment, PartitionId
    from lightning_elche.partition.replay import ReplayFingerprint
    from lightning_elche.partition.worker import PartitionBackend

__all__ = [
    "PartitionContext",
    "PartitionExecutor",
    "PartitionPayload",
    "PartitionPhase",
    "PartitionState",
    "PartitionTask",
    "PartitionTaskResult",
    "PhaseReport",
    "Schema",
    "SerialExecutor",
    "dispatch",
    "require_support",
    "run_task",
]

Schema = tuple[tuple[str, str, tuple[int, ...]], ...]
Clock = Callable[[], int]


class PartitionState(Protocol):
    """What can be cut into ranges of rows and put together again."""

    @property
    def num_rows(self) -> int:
        """The number of rows."""
        ...

    @property
    def num_bytes(self) -> int:
        """The number of bytes."""
        ...

    @property
    def schema(self) -> Schema:
        """Name, type and shape of what it holds; the same for each part of it."""
        ...

    @property
    def row_ids(self) -> NDArray[np.uint64]:
        """What each row is known by."""
        ...

    def slice(self, row_start: int, row_end: int, /) -> Self:
        """Return a copy of some rows."""
        ...

    def concat(self, parts: Sequence[Self], /) -> Self:
        """Return the rows of all parts, in their order."""
        ...

    def fingerprint(self, step: int, /) -> ReplayFingerprint:
        """Return its fingerprint at a step."""
        ...

    def to_bytes(self) -> bytes:
        """Return its bytes."""
        ...

    def with_bytes(self, data: bytes, /) -> Self:
        """Return the same rows with the bytes that another process made of them."""
        ...


S = TypeVar("S", bound=PartitionState)


@dataclass(frozen=True)
class PartitionContext:
    """Which partition a phase works on, and where.

    Args:
        partition_id: The partition.
        row_start: Its first row.
        row_end: The row behind its last one.
        worker: Label of its worker, if it has one.
        backend: Where it runs.
        step: The step of the state before the phases.
    """

    partition_id: PartitionId
    row_start: int
    row_end: int
    worker: str | None
    backend: PartitionBackend
    step: int


@dataclass(frozen=True)
class PartitionPayload(Generic[S]):
    """A part of a state, with what proves that it is this part.

    Args:
        assignment: The rows that it holds.
        step: The step of the state.
        state: The rows.
        plan_sha256: Digest of the plan that it was cut by.
        fingerprint: That of the rows at the step.
        binding: Hash of plan, place, step and lanes.
    """

    assignment: PartitionAssignment
    step: int
    state: S
    plan_sha256: str
    fingerprint: ReplayFingerprint
    binding: int

    @classmethod
    def of_state(
        cls, state: S, assignment: PartitionAssignment, step: int, plan_sha256: str
    ) -> PartitionPayload[S]:
        """Return the payload of rows as they are now."""
        fingerprint = state.fingerprint(step)
        binding = partition_binding(plan_sha256, assignment, step, fingerprint.lanes)
        return cls(assignment, step, state, plan_sha256, fingerprint, binding)

    def at(self, step: int, state: S) -> PartitionPayload[S]:
        """Return the payload of the same place with rows of another step."""
        return PartitionPayload.of_state(state, self.assignment, step, self.plan_sha256)


@dataclass(frozen=True)
class PartitionPhase:
    """A function that is called for each partition.

    Args:
        name: Its name, in errors and reports, and by which an endpoint knows it.
        function: Takes the context and the payload, whose rows it may change in place.
        is_persisting: Whether it only stores the rows; then they must stay as they are.
    """

    name: str
    function: Callable[[PartitionContext, PartitionPayload[Any]], None]
    is_persisting: bool = False


@dataclass(frozen=True)
class PartitionTask:
    """What an executor carries out.

    Args:
        context: The partition.
        payload: Its rows, a copy of their own.
        phases: What is done to them, in order.
    """

    context: PartitionContext
    payload: PartitionPayload[Any]
    phases: tuple[PartitionPhase, ...]

    @property
    def is_persisting(self) -> bool:
        """Whether all phases only store the rows."""
        return all(phase.is_persisting for phase in self.phases)

    @property
    def result_step(self) -> int:
        """The step of the rows after the phases."""
        return self.context.step + (not self.is_persisting)


@dataclass(frozen=True)
class PhaseReport:
    """How a phase went for one partition.

    Args:
        partition_id: The partition.
        worker: Label of its worker, if it has one.
        index: Number of the phase in the task.
        name: Its name.
        backend: Where it ran.
        rows: The number of rows.
        elapsed_us: How long it took.
    """

    partition_id: PartitionId
    worker: str | None
    index: int
    name: str
    backend: PartitionBackend
    rows: int
    elapsed_us: int

    @classmethod
    def of_phase(cls, task: PartitionTask, index: int, elapsed_us: int) -> PhaseReport:
        """Return the report of a phase of a task."""
        context, rows = task.context, task.payload.assignment.num_rows
        name = task.phases[index].name
        place = context.partition_id, context.worker
        return cls(*place, index, name, context.backend, rows, elapsed_us)


@dataclass(frozen=True)
class PartitionTaskResult:
    """What came of a task.

    Args:
        payload: The rows after the phases.
        reports: How each phase went.
    """

    payload: PartitionPayload[Any]
    reports: tuple[PhaseReport, ...] = ()


class PartitionExecutor(Protocol):
    """Carries out tasks."""

    def supports(self, backend: PartitionBackend, /) -> bool:
        """Return whether it can run what is assigned there."""
        ...

    def execute(self, tasks: Sequence[PartitionTask], /) -> Sequence[PartitionTaskResult]:
        """Return one result for each task.

        Raises:
            PartitionExecutorError: If any of them failed.
        """
        ...


class SerialExecutor:
    """Carries out tasks one after the other, in the order of the plan.

    Args:
        clock: Returns nanoseconds.
    """

    def __init__(self, *, clock: Clock = time.perf_counter_ns) -> None:
        self._clock = clock

    def supports(self, backend: PartitionBackend) -> bool:
        """Return whether that is the CPU of this process."""
        return backend.kind == "local_cpu"

    def execute(self, tasks: Sequence[PartitionTask]) -> list[PartitionTaskResult]:
        """Return the result of each task."""
        return [run_task(task, self._clock) for task in tasks]


def run_task(task: PartitionTask, clock: Clock = time.perf_counter_ns) -> PartitionTaskResult:
    """Call the phases of a task in this process.

    Raises:
        PhaseFailed: From the error of a phase.
    """
    reports = []
    for index, phase in enumerate(task.phases):
        started = clock()
        try:
            phase.function(task.context, task.payload)
        except Exception as err:
            message = str(err) or repr(err)
            raise PhaseFailed(task.context.partition_id, phase.name, message) from err
        reports.append(PhaseReport.of_phase(task, index, (clock() - started) // 1000))
    payload = task.payload.at(task.result_step, task.payload.state)
    return PartitionTaskResult(payload, tuple(reports))


def dispatch(
    executor: PartitionExecutor, tasks: Sequence[PartitionTask]
) -> Sequence[PartitionTaskResult]:
    """Let an executor carry out tasks, if it supports them all.

    Raises:
        UnsupportedBackend: If it does not; then nothing has run.
        ResultCountMismatch: If it returned more or fewer results.
    """
    require_support(tasks, executor.supports, type(executor).__name__)
    results = executor.execute(tasks)
    if len(results) != len(tasks):
        raise ResultCountMismatch(expected=len(tasks), actual=len(results))
    return results


def require_support(
    tasks: Sequence[PartitionTask], supports: Callable[[PartitionBackend], bool], name: str
) -> None:
    """Check that the backend of each task is supported.

    Args:
        tasks: The tasks.
        supports: Says whether a backend is.
        name: By whom.

    Raises:
        UnsupportedBackend: If one is not.
    """
    for task in tasks:
        if not supports(task.context.backend):
            raise UnsupportedBackend(task.context.partition_id, str(task.context.backend), name)
