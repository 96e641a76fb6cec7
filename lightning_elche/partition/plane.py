"""The step loop: cut a state, let phases work on its parts, put it together, check, record."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from lightning_elche.partition.errors import (
    InvalidConfig,
    PartitionExecution,
    PhaseFailed,
    ReassemblyError,
)
from lightning_elche.partition.executor import (
    Clock,
    PartitionContext,
    PartitionExecutor,
    PartitionPayload,
    PartitionPhase,
    PartitionState,
    PartitionTask,
    PartitionTaskResult,
    PhaseReport,
    SerialExecutor,
    dispatch,
    require_support,
)
from lightning_elche.partition.plan import PartitionPlan
from lightning_elche.partition.plane_metrics import PlaneCounters, PlaneMetrics
from lightning_elche.partition.policy import CheckpointPolicy
from lightning_elche.partition.reassembly import reassemble
from lightning_elche.partition.replay import Replay, ReplayFingerprint
from lightning_elche.partition.worker import (
    PartitionWorker,
    registered_workers,
    resolve_backend,
)

__all__ = ["PartitionPlane", "PartitionedStep", "PlaneCheckpoint"]

S = TypeVar("S", bound=PartitionState)


@dataclass(frozen=True)
class PlaneCheckpoint(Generic[S]):
    """A state in memory that can be gone back to.

    Args:
        sequence: Number of the checkpoint, from 1.
        label: What it was asked for.
        step: The step.
        fingerprint: That of the state.
        num_bytes: The bytes of the state.
        state: A copy of the state.
    """

    sequence: int
    label: str | None
    step: int
    fingerprint: ReplayFingerprint
    num_bytes: int
    state: S = field(repr=False)


@dataclass(frozen=True)
class PartitionedStep(Generic[S]):
    """How a step went.

    Args:
        step: The step before.
        num_rows: The number of rows after.
        reports: How each phase went for each partition.
        fingerprint: That of the state after, if replay wants it.
        checkpoint: The checkpoint that was due, if one was.
        total_us: How long all phases and checks took.
    """

    step: int
    num_rows: int
    reports: tuple[PhaseReport, ...]
    fingerprint: ReplayFingerprint | None
    checkpoint: PlaneCheckpoint[S] | None
    total_us: int


class PartitionPlane(Generic[S]):
    """Makes steps of a state whose partitions are worked on separately.

    An error of a phase, an executor or a check leaves the state, the step, the replay and the
    metrics as they were. A step whose fingerprint is not the expected one was made all the same, so
    that its state can be looked at.

    Args:
        state: The state.
        step: Its step.
        plan: How it is cut.
        workers: The workers that the plan names.
        policy: When a step makes a checkpoint.
        replay: Takes in fingerprints.
        max_retained: How many checkpoints are kept; older ones are dropped.
        clock: Returns nanoseconds.

    Example:
        >>> from lightning_elche.partition.columns import ColumnState
        >>> plane = PartitionPlane(
        ...     ColumnState([1, 2], {"x": [0, 1]}), plan=PartitionPlan.row_ranges(2, 2)
        ... )
        >>> def shift(context, payload):
        ...     payload.state.columns["x"][:] += context.row_start
        >>> plane.add_phase("shift", shift)
        >>> plane.step().num_rows, plane.state.columns["x"].tolist()
        (2, [0.0, 2.0])
    """

    def __init__(
        self,
        state: S,
        *,
        step: int = 0,
        plan: PartitionPlan | None = None,
        workers: Sequence[PartitionWorker] = (),
        policy: CheckpointPolicy | None = None,
        replay: Replay | None = None,
        max_retained: int = 4,
        clock: Clock = time.perf_counter_ns,
    ) -> None:
        if max_retained < 1:
            raise InvalidConfig("max_retained_checkpoints must be greater than zero")
        self.plan = plan or PartitionPlan.single_process()
        self.plan.validate(state.num_rows)
        self._state, self._step = state, step
        self._workers = registered_workers(workers)
        self._policy = policy or CheckpointPolicy.disabled()
        self._replay = replay or Replay()
        self._phases: list[PartitionPhase] = []
        self._checkpoints: deque[PlaneCheckpoint[S]] = deque(maxlen=max_retained)
        self._counters = PlaneCounters()
        self._clock = clock

    @property
    def state(self) -> S:
        """The state."""
        return self._state

    @property
    def current_step(self) -> int:
        """The step."""
        return self._step

    @property
    def checkpoints(self) -> tuple[PlaneCheckpoint[S], ...]:
        """Those that are kept, oldest first."""
        return tuple(self._checkpoints)

    @property
    def latest_checkpoint(self) -> PlaneCheckpoint[S] | None:
        """The newest one."""
        return self._checkpoints[-1] if self._checkpoints else None

    @property
    def recorded_replay(self) -> tuple[ReplayFingerprint, ...]:
        """The fingerprints that were taken in."""
        return self._replay.recorded

    def metrics(self) -> PlaneMetrics:
        """Return the counters as they are now."""
        return PlaneMetrics(
            current_step=self._step,
            num_rows=self._state.num_rows,
            num_bytes=self._state.num_bytes,
            phase_count=len(self._phases),
            partition_count=self.plan.partition_count,
            **vars(self._counters),
        )

    def add_phase(
        self,
        name: str,
        function: Callable[[PartitionContext, PartitionPayload[Any]], None],
        *,
        is_persisting: bool = False,
    ) -> None:
        """Add a function that each step calls for each partition, after those added before.

        Args:
            name: Its name.
            function: Takes the context and the payload, whose rows it may change in place.
            is_persisting: Whether it only stores the rows. A step of such phases alone does not
                advance.
        """
        self._phases.append(PartitionPhase(name, function, is_persisting))

    def step(self, executor: PartitionExecutor | None = None) -> PartitionedStep[S]:
        """Make a step.

        Args:
            executor: Who carries out the phases; by default they are called one by one here.

        Raises:
            InvalidConfig: If there is no phase.
            PartitionExecution: If a phase failed without an executor.
            PartitionExecutorError: If the executor failed.
            ReassemblyError: If its results do not make up the state.
            ReplayError: If the fingerprint is not the expected one.
        """
        if not self._phases:
            kind = "partition" if executor is None else "executor partition"
            raise InvalidConfig(f"at least one {kind} phase must be registered")
        started = self._clock()
        before = self._step
        tasks = self._tasks()
        results = self._carry_out(tasks, executor)
        state = reassemble(
            [result.payload for result in results], self.plan, like=self._state, tasks=tasks
        )
        self._state, self._step = state, tasks[0].result_step
        total_us = (self._clock() - started) // 1000
        reports = tuple(report for result in results for report in result.reports)
        self._counters = self._counters.after_step(reports, total_us)
        fingerprint = self._take_fingerprint()
        is_due = self._policy.due(self._step, before)
        checkpoint = self.checkpoint() if is_due else None
        num_rows = state.num_rows
        return PartitionedStep(before, num_rows, reports, fingerprint, checkpoint, total_us)

    def run(
        self, steps: int, executor: PartitionExecutor | None = None
    ) -> list[PartitionedStep[S]]:
        """Make several steps, with the errors of `step`."""
        return [self.step(executor) for _ in range(steps)]

    def checkpoint(self, label: str | None = None) -> PlaneCheckpoint[S]:
        """Make a checkpoint now and keep it."""
        state = self._state.slice(0, self._state.num_rows)
        sequence = self._counters.checkpoints_created + 1
        made = PlaneCheckpoint(
            sequence, label, self._step, state.fingerprint(self._step), state.num_bytes, state
        )
        self._counters = replace(self._counters, checkpoints_created=sequence)
        self._checkpoints.append(made)
        return made

    def restore(self, checkpoint: PlaneCheckpoint[S]) -> None:
        """Go back to a checkpoint; phases, kept checkpoints and counters stay.

        Raises:
            ReassemblyError: If it is not what it was when it was made, or of other columns.
            PartitionPlanError: If the plan does not fit it. In both cases nothing has changed.
        """
        state = checkpoint.state.slice(0, checkpoint.state.num_rows)
        if state.fingerprint(checkpoint.step) != checkpoint.fingerprint:
            raise ReassemblyError(f"checkpoint {checkpoint.sequence} fingerprint mismatch")
        self._replace(state, checkpoint.step)

    def partition_checkpoints(self) -> list[PartitionPayload[S]]:
        """Return each partition of the state as a payload of its own."""
        sha256 = self.plan.sha256
        return [
            PartitionPayload.of_state(
                self._state.slice(one.row_start, one.row_end), one, self._step, sha256
            )
            for one in self.plan.materialized(self._state.num_rows)
        ]

    def restore_partitions(self, partitions: Sequence[PartitionPayload[S]]) -> None:
        """Go back to the state that partitions make up, in any order.

        Raises:
            ReassemblyError: If they do not make up one.
            PartitionPlanError: If the plan does not fit it. In both cases nothing has changed.
        """
        state = reassemble(partitions, self.plan, like=self._state)
        self._replace(state, partitions[0].step)

    def _replace(self, state: S, step: int) -> None:
        if state.schema != self._state.schema:
            raise ReassemblyError("checkpoint schema does not match the active state")
        self.plan.validate(state.num_rows)
        self._state, self._step = state, step
        self._replay.restore(step)

    def _tasks(self) -> list[PartitionTask]:
        phases = tuple(self._phases)
        tasks = []
        for payload in self.partition_checkpoints():
            one = payload.assignment
            backend = resolve_backend(one, self._workers)
            place = one.partition_id, one.row_start, one.row_end, one.worker
            tasks.append(
                PartitionTask(PartitionContext(*place, backend, self._step), payload, phases)
            )
        return tasks

    def _carry_out(
        self, tasks: list[PartitionTask], executor: PartitionExecutor | None
    ) -> Sequence[PartitionTaskResult]:
        if executor is not None:
            return dispatch(executor, tasks)
        serial = SerialExecutor(clock=self._clock)
        require_support(tasks, serial.supports, "a step without an executor")
        try:
            return serial.execute(tasks)
        except PhaseFailed as err:
            raise PartitionExecution(err.partition, err.phase, err.message) from err.__cause__

    def _take_fingerprint(self) -> ReplayFingerprint | None:
        if not self._replay.is_on:
            return None
        fingerprint = self._state.fingerprint(self._step)
        self._replay.report(fingerprint)
        taken_in = self._counters.replay_fingerprints + 1
        self._counters = replace(self._counters, replay_fingerprints=taken_in)
        return fingerprint
