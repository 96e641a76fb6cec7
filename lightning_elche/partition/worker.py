"""Who works on partitions: the CPU of this process, a device, or what is behind an endpoint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lightning_elche.partition.errors import (
    DuplicateWorker,
    InvalidConfig,
    MissingPartitionWorker,
)

if TYPE_CHECKING:
    from lightning_elche.partition.plan import PartitionAssignment, PartitionPlan

__all__ = [
    "BACKENDS",
    "LOCAL_CPU",
    "PartitionBackend",
    "PartitionConfig",
    "PartitionWorker",
    "registered_workers",
    "resolve_backend",
]

BACKENDS = ("local_cpu", "cuda_device", "external")
EXECUTORS = ("auto", "serial", "threaded", "rank", "endpoint")


@dataclass(frozen=True)
class PartitionBackend:
    """Where the phases of a partition run.

    Args:
        kind: "local_cpu", "cuda_device" or "external".
        device_ordinal: Number of the device, for "cuda_device".
        endpoint: Address of the worker, for "external".
    """

    kind: str = "local_cpu"
    device_ordinal: int | None = None
    endpoint: str | None = None

    def __str__(self) -> str:
        return self.kind if self.device_ordinal is None else f"{self.kind}:{self.device_ordinal}"


LOCAL_CPU = PartitionBackend()


@dataclass(frozen=True)
class PartitionWorker:
    """A worker that partitions can be assigned to by its label.

    Args:
        label: Its name, as in the assignments.
        backend: Where it runs: "local_cpu", "cuda_device" or "external".
        device_ordinal: Number of its device, for "cuda_device" only.
        endpoint: Its address, for "external" only.

    Example:
        >>> PartitionWorker.cuda_device("left", 0).target
        PartitionBackend(kind='cuda_device', device_ordinal=0, endpoint=None)
    """

    label: str
    backend: str = "local_cpu"
    device_ordinal: int | None = None
    endpoint: str | None = None

    def __post_init__(self) -> None:
        """Validate."""
        if self.backend not in BACKENDS:
            raise InvalidConfig(f"`backend` must be one of {BACKENDS}, got {self.backend!r}.")
        if (self.device_ordinal is not None) != (self.backend == "cuda_device"):
            raise InvalidConfig(
                "`device_ordinal` must be given for 'cuda_device' and for nothing else, "
                f"got {self.device_ordinal} for {self.backend!r}."
            )
        if self.device_ordinal is not None and self.device_ordinal < 0:
            raise InvalidConfig(f"`device_ordinal` must be >= 0, got {self.device_ordinal}.")
        if self.endpoint is not None and self.backend != "external":
            raise InvalidConfig(
                f"`endpoint` must be given for 'external' only, got one for {self.backend!r}."
            )

    @classmethod
    def local_cpu(cls, label: str) -> PartitionWorker:
        """Return a worker on the CPU of this process."""
        return cls(label)

    @classmethod
    def cuda_device(cls, label: str, device_ordinal: int) -> PartitionWorker:
        """Return a worker on a CUDA device."""
        return cls(label, "cuda_device", device_ordinal=device_ordinal)

    @classmethod
    def external(cls, label: str, endpoint: str) -> PartitionWorker:
        """Return a worker behind an endpoint."""
        return cls(label, "external", endpoint=endpoint)

    @property
    def target(self) -> PartitionBackend:
        """Where it runs."""
        return PartitionBackend(self.backend, self.device_ordinal, self.endpoint)


@dataclass(frozen=True, kw_only=True)
class PartitionConfig:
    """How a state is split and who works on the parts.

    Args:
        count: Number of partitions; by default the number of ranks with executor "rank", else 1:
            the threads of one process share out other work than partitions.
        plan: The plan, instead of one that balances bytes.
        workers: The workers that the plan names.
        executor: "auto", "serial", "threaded", "rank", "endpoint", or an executor.
        num_threads: Threads of this process that work on partitions.
        timeout_s: Seconds that an endpoint has for a partition.
        retries: How often a failed endpoint is asked again.
    """

    count: int | None = None
    plan: PartitionPlan | None = None
    workers: tuple[PartitionWorker, ...] = ()
    executor: object = "auto"
    num_threads: int = 2
    timeout_s: float = 600.0
    retries: int = 3

    def __post_init__(self) -> None:
        """Validate."""
        if self.count is not None and self.count < 1:
            raise InvalidConfig(f"`count` must be >= 1, got {self.count}.")
        if isinstance(self.executor, str) and self.executor not in EXECUTORS:
            raise InvalidConfig(
                f"`executor` must be one of {EXECUTORS} or an executor, got {self.executor!r}."
            )
        if self.num_threads < 1:
            raise InvalidConfig(f"`num_threads` must be >= 1, got {self.num_threads}.")
        if not self.timeout_s > 0.0:
            raise InvalidConfig(f"`timeout_s` must be > 0, got {self.timeout_s}.")
        if self.retries < 0:
            raise InvalidConfig(f"`retries` must be >= 0, got {self.retries}.")
        registered_workers(self.workers)

    def executor_kind(self, *, has_rank_executor: bool) -> object:
        """Return the executor, or its name, "auto" resolved.

        Args:
            has_rank_executor: Whether there are several ranks that can each work on a part.
        """
        if self.executor != "auto":
            return self.executor
        if has_rank_executor:
            return "rank"
        is_routed = any(worker.backend == "external" for worker in self.workers)
        return "routing" if is_routed else "threaded"


def registered_workers(workers: Iterable[PartitionWorker]) -> dict[str, PartitionWorker]:
    """Return the workers by label.

    Raises:
        DuplicateWorker: If two have the same.
    """
    registered: dict[str, PartitionWorker] = {}
    for worker in workers:
        if worker.label in registered:
            raise DuplicateWorker(worker.label)
        registered[worker.label] = worker
    return registered


def resolve_backend(
    assignment: PartitionAssignment, workers: Mapping[str, PartitionWorker]
) -> PartitionBackend:
    """Return where a partition runs: without a label on the CPU of this process.

    Raises:
        MissingPartitionWorker: If its label is not that of a worker.
    """
    if assignment.worker is None:
        return LOCAL_CPU
    if assignment.worker not in workers:
        raise MissingPartitionWorker(assignment.partition_id, assignment.worker)
    return workers[assignment.worker].target
