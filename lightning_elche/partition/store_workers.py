"""Hands partitions of a snapshot to workers elsewhere, which confirm what they have stored."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lightning_elche.partition.clients import FsspecClient, HttpClient
from lightning_elche.partition.endpoint import EndpointExecutor
from lightning_elche.partition.errors import InvalidConfig, ReassemblyError
from lightning_elche.partition.executor import (
    PartitionContext,
    PartitionPayload,
    PartitionPhase,
    PartitionTask,
    dispatch,
)
from lightning_elche.partition.plan import PartitionPlan
from lightning_elche.partition.rows import RowSpace, TensorRows
from lightning_elche.partition.threaded import RoutingExecutor, ThreadedExecutor
from lightning_elche.partition.worker import (
    PartitionConfig,
    PartitionWorker,
    registered_workers,
    resolve_backend,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from lightning_elche.partition.executor import PartitionExecutor, PartitionTaskResult
    from lightning_elche.partition.store_snapshot import Snapshot

__all__ = ["check_workers", "plan_for_workers", "send_partitions"]

OWN = ("serial", "threaded", "rank")  # executors that leave nothing to workers elsewhere


class _AnyClient:
    """Speaks HTTP to http addresses, and what fsspec knows to all others."""

    def __init__(self, run: str, timeout_s: float) -> None:
        self._http = HttpClient(run, timeout_s=timeout_s)
        self._files = FsspecClient(run)

    def execute_partition(self, endpoint: str, task: PartitionTask) -> PartitionTaskResult:
        is_http = urlsplit(endpoint).scheme in ("http", "https")
        client = self._http if is_http else self._files
        return client.execute_partition(endpoint, task)


def check_workers(config: PartitionConfig) -> None:
    """Check that the executor can reach the workers.

    Raises:
        InvalidConfig: If it cannot, or if there is none to reach.
    """
    kinds = {worker.backend for worker in config.workers}
    if "cuda_device" in kinds:
        raise InvalidConfig(
            "`workers` must be of backend 'local_cpu' or 'external' for checkpoints, got "
            "'cuda_device': files are written by the CPU."
        )
    if config.executor in OWN and "external" in kinds:
        raise InvalidConfig(
            f"`executor` must be 'auto' or 'endpoint' with external workers, got "
            f"{config.executor!r}, which would leave them without rows."
        )
    if config.executor == "endpoint" and "external" not in kinds:
        raise InvalidConfig(
            "`workers` must have an external one with executor 'endpoint', got "
            f"{len(config.workers)} without. Add `PartitionWorker.external(label, endpoint)`."
        )


def plan_for_workers(plan: PartitionPlan, workers: Sequence[PartitionWorker]) -> PartitionPlan:
    """Return a plan whose partitions are those of the workers, in their order."""
    labels = [workers[i % len(workers)].label for i in range(plan.partition_count)]
    return plan.with_workers(labels)


def send_partitions(snapshot: Snapshot, config: PartitionConfig) -> None:
    """Let workers elsewhere store their partitions, and wait until each has confirmed it.

    Args:
        snapshot: The state; its own plan says which rows are whose.
        config: The workers, and how long and how often they are asked.

    Raises:
        PartitionError: If a worker has not stored what it should; a subclass says why.
    """
    is_named = isinstance(config.executor, str)
    executor = _executor(config, snapshot.run_id) if is_named else config.executor
    tasks = _tasks(snapshot, config, is_for_all=not is_named)
    if not tasks:
        return
    for task, result in zip(tasks, dispatch(executor, tasks), strict=True):  # type: ignore[arg-type]  # the user's word
        if result.payload.binding != task.payload.binding:
            number = task.context.partition_id.value
            raise ReassemblyError(f"partition {number} came back with other rows than it was given")


def _executor(config: PartitionConfig, run: str) -> PartitionExecutor:
    endpoints = EndpointExecutor(
        _AnyClient(run, config.timeout_s),
        num_threads=config.num_threads,
        timeout_s=config.timeout_s,
        retries=config.retries,
    )
    here = ThreadedExecutor(config.num_threads)
    return RoutingExecutor({"local_cpu": here, "external": endpoints})


def _tasks(snapshot: Snapshot, config: PartitionConfig, *, is_for_all: bool) -> list[PartitionTask]:
    workers = registered_workers(config.workers)
    space, plan = snapshot.row_space(), snapshot.plan
    rows = _rows(snapshot, space)
    store = PartitionPhase("store", _store, is_persisting=True)
    tasks = []
    for one in plan.materialized(space.num_rows):
        backend = resolve_backend(one, workers)
        if backend.kind == "local_cpu" and not is_for_all:
            continue  # its rows are in the files
        own = rows.slice(one.row_start, one.row_end)
        payload = PartitionPayload.of_state(own, one, snapshot.step, plan.sha256)
        place = one.partition_id, one.row_start, one.row_end, one.worker
        context = PartitionContext(*place, backend, snapshot.step)
        tasks.append(PartitionTask(context, payload, (store,)))
    return tasks


def _rows(snapshot: Snapshot, space: RowSpace) -> TensorRows:
    data = {
        f"{group}/{one.name}": one.data for group, own in snapshot.groups.items() for one in own
    }
    return TensorRows.of_tensors(space, data)


def _store(context: PartitionContext, payload: PartitionPayload[Any]) -> None:
    """Do nothing: a client stores the rows once the phases have ended."""
