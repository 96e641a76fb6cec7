"""Executors that carry out tasks at the same time: on threads, or with other executors."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from lightning_elche.partition.errors import InvalidConfig, PartitionError, WorkerFailed
from lightning_elche.partition.executor import (
    Clock,
    PartitionExecutor,
    PartitionTask,
    PartitionTaskResult,
    dispatch,
    require_support,
    run_task,
)
from lightning_elche.partition.plan import PartitionId
from lightning_elche.partition.worker import BACKENDS, PartitionBackend

__all__ = ["RoutingExecutor", "ThreadedExecutor", "run_at_once"]

T = TypeVar("T")


class ThreadedExecutor:
    """Carries out tasks on threads of this process.

    All tasks are ended before an error is raised: the first one in the order of ids.

    Args:
        num_threads: How many threads there are, however many tasks.
        clock: Returns nanoseconds.
    """

    def __init__(self, num_threads: int = 2, *, clock: Clock = time.perf_counter_ns) -> None:
        if num_threads < 1:
            raise InvalidConfig(f"`num_threads` must be >= 1, got {num_threads}.")
        self._num_threads = num_threads
        self._clock = clock

    def supports(self, backend: PartitionBackend) -> bool:
        """Return whether that is the CPU of this process."""
        return backend.kind == "local_cpu"

    def execute(self, tasks: Sequence[PartitionTask]) -> list[PartitionTaskResult]:
        """Return the result of each task.

        Raises:
            PhaseFailed: If a phase failed.
            WorkerFailed: If a thread was ended by a phase.
        """

        def run(task: PartitionTask) -> PartitionTaskResult:
            return run_task(task, self._clock)

        calls = [(task.context.partition_id, task) for task in tasks]
        return run_at_once(run, calls, self._num_threads)


class RoutingExecutor:
    """Hands each task to the executor of its backend; these work at the same time.

    Args:
        routes: The executor of each kind of backend: "local_cpu", "cuda_device", "external".

    Example:
        >>> executor = RoutingExecutor({"local_cpu": ThreadedExecutor()})
        >>> executor.supports(PartitionBackend("external"))
        False
    """

    def __init__(self, routes: Mapping[str, PartitionExecutor]) -> None:
        unknown = [kind for kind in routes if kind not in BACKENDS]
        if unknown:
            raise InvalidConfig(f"`routes` must be of {BACKENDS}, got {unknown[0]!r}.")
        self._routes = dict(routes)

    def supports(self, backend: PartitionBackend) -> bool:
        """Return whether there is an executor that supports it."""
        route = self._routes.get(backend.kind)
        return route is not None and route.supports(backend)

    def execute(self, tasks: Sequence[PartitionTask]) -> list[PartitionTaskResult]:
        """Return the result of each task, in their order.

        Raises:
            PartitionExecutorError: If any of them failed.
        """
        require_support(tasks, self.supports, type(self).__name__)
        by_kind: dict[str, list[PartitionTask]] = {}
        for task in tasks:
            by_kind.setdefault(task.context.backend.kind, []).append(task)

        def run(kind: str) -> Sequence[PartitionTaskResult]:
            return dispatch(self._routes[kind], by_kind[kind])

        calls = [(min(t.context.partition_id for t in own), kind) for kind, own in by_kind.items()]
        results = run_at_once(run, calls, max(len(calls), 1))
        own = {kind: iter(of_kind) for (_, kind), of_kind in zip(calls, results, strict=True)}
        return [next(own[task.context.backend.kind]) for task in tasks]


C = TypeVar("C")


def run_at_once(
    function: Callable[[C], T], calls: Sequence[tuple[PartitionId, C]], num_threads: int
) -> list[T]:
    """Return what `function` returns for each argument, called on threads.

    Args:
        function: What to call.
        calls: Pairs of a partition and the argument.
        num_threads: How many threads there are.

    Raises:
        PartitionError: The one of the lowest partition, after all calls have ended; it is a
            `WorkerFailed` where `function` raised something else.
    """
    with ThreadPoolExecutor(num_threads, thread_name_prefix="elche-partition") as pool:
        futures = [(partition, pool.submit(function, argument)) for partition, argument in calls]
    errors = [
        _as_partition_error(partition, error)
        for partition, future in futures
        if (error := future.exception()) is not None
    ]
    if errors:
        raise min(errors, key=lambda pair: pair[0])[1]
    return [future.result() for _, future in futures]


def _as_partition_error(
    partition: PartitionId, error: BaseException
) -> tuple[PartitionId, PartitionError]:
    if isinstance(error, PartitionError):
        return getattr(error, "partition", partition), error
    failed = WorkerFailed(partition, str(error) or repr(error))
    failed.__cause__ = error
    return partition, failed
