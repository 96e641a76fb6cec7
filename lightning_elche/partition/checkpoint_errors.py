"""The errors of writing and reading checkpoints."""

from __future__ import annotations

import errno as error_numbers
from dataclasses import dataclass

from lightning_elche.partition.error_base import PartitionError

__all__ = [
    "CheckpointError",
    "Corrupt",
    "DivergentWriters",
    "DurabilityUncertain",
    "Incomplete",
    "NoCheckpointFound",
    "NoValidCheckpoint",
    "PlanMismatch",
    "UnsafePath",
    "UnsupportedFormat",
    "UnsupportedState",
    "WriteFailed",
]


class CheckpointError(PartitionError):
    """A checkpoint cannot be written or must not be read."""


@dataclass(eq=False, repr=False)
class Incomplete(CheckpointError):
    """Files of a checkpoint are missing or too short."""

    text = "checkpoint {path} is incomplete: {reason}"
    path: str
    reason: str


@dataclass(eq=False, repr=False)
class Corrupt(CheckpointError):
    """A checkpoint is not what was written; the file, partition and rows are named where known."""

    text = "checkpoint {path} is corrupt: {reason}"
    path: str
    reason: str
    file: str | None = None
    partition: int | None = None
    rows: tuple[int, int] | None = None

    def __str__(self) -> str:
        partition = None if self.partition is None else f"partition {self.partition}"
        rows = None if self.rows is None else f"rows {self.rows[0]}..{self.rows[1]}"
        known = ", ".join(part for part in (self.file, partition, rows) if part is not None)
        return super().__str__() + (f" ({known})" if known else "")


@dataclass(eq=False, repr=False)
class PlanMismatch(CheckpointError):
    """The parts of a checkpoint are not those of its plan."""

    text = "checkpoint {path} does not match its plan: {reason}"
    path: str
    reason: str


@dataclass(eq=False, repr=False)
class UnsupportedFormat(CheckpointError):
    """A checkpoint has a format that this release does not read."""

    text = "checkpoint {path} has format {found!r}, this release reads {supported!r}"
    path: str
    found: str
    supported: str


@dataclass(eq=False, repr=False)
class UnsupportedState(CheckpointError, TypeError):
    """A value of the state has a type that a checkpoint cannot hold."""

    text = "the state at {path} is of type {type_name}, which a checkpoint cannot hold"
    path: str
    type_name: str


@dataclass(eq=False, repr=False)
class UnsafePath(CheckpointError):
    """A path leads out of its checkpoint, or is not a plain file or folder."""

    text = "path {path!r} is not safe: {reason}"
    path: str
    reason: str


@dataclass(eq=False, repr=False)
class DivergentWriters(CheckpointError):
    """A checkpoint of this step exists and holds another content; both are kept."""

    text = "checkpoint {path} exists with content {expected}, this one has content {actual}"
    path: str
    expected: str
    actual: str


@dataclass(eq=False, repr=False)
class WriteFailed(CheckpointError, OSError):
    """A checkpoint could not be written; those that were there are there still."""

    text = "checkpoint {path} could not be written: {reason}"
    path: str
    reason: str
    errno: int | None = None


@dataclass(eq=False, repr=False)
class DurabilityUncertain(CheckpointError):
    """A checkpoint is in its place but may not survive a power cut."""

    text = "checkpoint {path} was published, but may not be durable: {reason}"
    path: str
    reason: str


@dataclass(eq=False, repr=False)
class NoCheckpointFound(CheckpointError, FileNotFoundError):
    """There is no checkpoint."""

    text = "no checkpoint found at {path}"
    path: str

    def __post_init__(self) -> None:
        """Set what the built-in error has."""
        super().__post_init__()
        self.errno = error_numbers.ENOENT


@dataclass(eq=False, repr=False)
class NoValidCheckpoint(CheckpointError):
    """There are checkpoints, and none is good; rejections are pairs of name and reason."""

    text = "no valid checkpoint at {path}: {rejections}"
    path: str
    rejections: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in self.rejections)
        return f"no valid checkpoint at {self.path}: {reasons}"
