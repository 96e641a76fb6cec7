"""The errors of plans, executors, replay and checkpoints; their data are their attributes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lightning_elche.partition.checkpoint_errors import (
    CheckpointError,
    Corrupt,
    DivergentWriters,
    DurabilityUncertain,
    Incomplete,
    NoCheckpointFound,
    NoValidCheckpoint,
    PlanMismatch,
    UnsafePath,
    UnsupportedFormat,
    UnsupportedState,
    WriteFailed,
)
from lightning_elche.partition.error_base import PartitionError

if TYPE_CHECKING:
    from lightning_elche.partition.plan import PartitionId

__all__ = [
    "CheckpointError",
    "Corrupt",
    "CoverageMismatch",
    "DivergentWriters",
    "DuplicatePartition",
    "DuplicateWorker",
    "DurabilityUncertain",
    "EmptyRange",
    "Incomplete",
    "InvalidConfig",
    "InvalidPartitionCount",
    "InvertedRange",
    "MissingEndpoint",
    "MissingPartitionWorker",
    "NoCheckpointFound",
    "NoValidCheckpoint",
    "NonContiguousRange",
    "PartitionError",
    "PartitionExecution",
    "PartitionExecutorError",
    "PartitionPlanError",
    "PhaseFailed",
    "PlanMismatch",
    "RangeOutOfBounds",
    "ReassemblyError",
    "ReplayDivergence",
    "ReplayError",
    "ReplayExhausted",
    "ReplayFormatError",
    "ReplayIncomplete",
    "ReplayStepMismatch",
    "ReplicaDivergence",
    "ResultCountMismatch",
    "SingleProcessHasAssignments",
    "UnsafePath",
    "UnsupportedBackend",
    "UnsupportedFormat",
    "UnsupportedState",
    "WorkerCountMismatch",
    "WorkerFailed",
    "WriteFailed",
]


@dataclass(eq=False, repr=False)
class InvalidConfig(PartitionError, ValueError):
    """An option is not one that can be run with."""

    text = "invalid control-plane configuration: {reason}"
    reason: str


class PartitionPlanError(PartitionError, ValueError):
    """A plan does not assign each row once."""


@dataclass(eq=False, repr=False)
class InvalidPartitionCount(PartitionPlanError):
    """There is to be no partition."""

    text = "partition_count must be greater than zero"


@dataclass(eq=False, repr=False)
class SingleProcessHasAssignments(PartitionPlanError):
    """A plan for one process assigns rows."""

    text = "single-process partition plan must not contain row assignments"


@dataclass(eq=False, repr=False)
class WorkerCountMismatch(PartitionPlanError):
    """There are more or fewer labels of workers than assignments."""

    text = "worker count {workers} does not match assignment count {assignments}"
    assignments: int
    workers: int


@dataclass(eq=False, repr=False)
class NonContiguousRange(PartitionPlanError):
    """A partition does not start where the one before it ends."""

    text = "partition {partition} starts at row {row_start}, expected {expected_start}"
    partition: PartitionId
    row_start: int
    expected_start: int


@dataclass(eq=False, repr=False)
class InvertedRange(PartitionPlanError):
    """A partition ends before it starts."""

    text = "partition {partition} ends at row {row_end}, before its start at row {row_start}"
    partition: PartitionId
    row_start: int
    row_end: int


@dataclass(eq=False, repr=False)
class RangeOutOfBounds(PartitionPlanError):
    """A partition ends behind the last row."""

    text = "partition {partition} ends at row {row_end}, beyond agent count {rows}"
    partition: PartitionId
    row_end: int
    rows: int


@dataclass(eq=False, repr=False)
class EmptyRange(PartitionPlanError):
    """A partition has no rows though there are some."""

    text = "partition {partition} has an empty row range"
    partition: PartitionId


@dataclass(eq=False, repr=False)
class CoverageMismatch(PartitionPlanError):
    """The last partition ends before the last row."""

    text = "static partition plan covers {covered_rows} rows, expected {rows}"
    covered_rows: int
    rows: int


@dataclass(eq=False, repr=False)
class DuplicatePartition(PartitionPlanError):
    """Two assignments have the same id."""

    text = "partition {partition} is assigned more than once"
    partition: PartitionId


@dataclass(eq=False, repr=False)
class DuplicateWorker(PartitionPlanError):
    """Two workers have the same label."""

    text = "worker {worker} is registered more than once"
    worker: str


@dataclass(eq=False, repr=False)
class MissingPartitionWorker(PartitionError):
    """A partition is assigned to a worker that is not registered."""

    text = "partition {partition} references missing worker {worker}"
    partition: PartitionId
    worker: str


@dataclass(eq=False, repr=False)
class PartitionExecution(PartitionError):
    """A phase failed in a step without an executor."""

    text = "partition {partition} phase {phase} failed: {message}"
    partition: PartitionId
    phase: str
    message: str


class PartitionExecutorError(PartitionError):
    """An executor did not carry out its tasks."""


@dataclass(eq=False, repr=False)
class WorkerFailed(PartitionExecutorError):
    """A worker failed outside of a phase."""

    text = "partition {partition} worker failed: {message}"
    partition: PartitionId
    message: str


@dataclass(eq=False, repr=False)
class PhaseFailed(PartitionExecutorError):
    """A phase failed on a worker."""

    text = "partition {partition} phase {phase} failed: {message}"
    partition: PartitionId
    phase: str
    message: str


@dataclass(eq=False, repr=False)
class MissingEndpoint(PartitionExecutorError):
    """An external worker has no endpoint."""

    text = "partition {partition} has no external endpoint"
    partition: PartitionId


@dataclass(eq=False, repr=False)
class ResultCountMismatch(PartitionExecutorError):
    """An executor returned more or fewer results than it had tasks."""

    text = "partition executor returned {actual} results, expected {expected}"
    expected: int
    actual: int


@dataclass(eq=False, repr=False)
class UnsupportedBackend(PartitionExecutorError):
    """An executor cannot run what a partition is assigned to."""

    text = "partition {partition} needs backend {backend}, which {executor} does not support"
    partition: PartitionId
    backend: str
    executor: str


@dataclass(eq=False, repr=False)
class ReassemblyError(PartitionError):
    """Parts do not make up the state that they were taken from."""

    text = "partition checkpoint error: {reason}"
    reason: str


class ReplayError(PartitionError):
    """A run does not repeat the recorded one, or the record cannot be read."""


@dataclass(eq=False, repr=False)
class ReplayDivergence(ReplayError):
    """A fingerprint differs from the recorded one."""

    text = "replay diverged at step {step}: expected {expected:#018x}, got {actual:#018x}"
    step: int
    expected: int
    actual: int


@dataclass(eq=False, repr=False)
class ReplayStepMismatch(ReplayError):
    """A fingerprint is of another step than the recorded one."""

    text = "replay expected step {expected_step} but runtime produced step {actual_step}"
    expected_step: int
    actual_step: int


@dataclass(eq=False, repr=False)
class ReplayExhausted(ReplayError):
    """The record ends before the run."""

    text = "replay has no expected fingerprint for step {step}"
    step: int


@dataclass(eq=False, repr=False)
class ReplayIncomplete(ReplayError):
    """The run ends before the record."""

    text = "replay ended with {remaining} expected fingerprints left"
    remaining: int


@dataclass(eq=False, repr=False)
class ReplayFormatError(ReplayError):
    """A line of a record is not one; the first line is line 1."""

    text = "replay line {line} is not readable: {reason}"
    line: int
    reason: str


@dataclass(eq=False, repr=False)
class ReplicaDivergence(PartitionError, RuntimeError):
    """Replicas that were just averaged are not equal.

    Suspects are the ranks outside a strict majority, none if there is none; values are the pairs of
    lanes of all ranks.
    """

    text = "replicas differ after averaging {sync_index} (step {step}), suspect ranks: {suspects}"
    sync_index: int
    step: int
    suspects: tuple[int, ...]
    values: tuple[tuple[int, int], ...]
