"""Tasks of external workers, through a client that knows how to reach them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from lightning_elche.partition.errors import (
    InvalidConfig,
    MissingEndpoint,
    PartitionExecutorError,
    WorkerFailed,
)
from lightning_elche.partition.executor import PartitionTask, PartitionTaskResult
from lightning_elche.partition.threaded import run_at_once
from lightning_elche.partition.worker import PartitionBackend

__all__ = ["EndpointExecutor", "PartitionClient"]

FIRST_PAUSE_S = 0.1
PAUSE_GROWTH = 4.0


class PartitionClient(Protocol):
    """Carries a task to an endpoint and its result back."""

    def execute_partition(self, endpoint: str, task: PartitionTask, /) -> PartitionTaskResult:
        """Return the result of a task.

        It is called again if it fails, so that the same task must be stored once. If asking again
        cannot help, it raises a `PartitionExecutorError`.
        """
        ...


class EndpointExecutor:
    """Carries out tasks of external workers.

    Args:
        client: Reaches an endpoint.
        num_threads: How many endpoints are asked at once.
        timeout_s: Seconds that one attempt may take.
        retries: How often a failed task is tried again, after 0.1, 0.4, 1.6 seconds and so on.
        sleep: Pauses for so many seconds.
    """

    def __init__(
        self,
        client: PartitionClient,
        *,
        num_threads: int = 2,
        timeout_s: float = 600.0,
        retries: int = 3,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        if num_threads < 1:
            raise InvalidConfig(f"`num_threads` must be >= 1, got {num_threads}.")
        if not timeout_s > 0.0:
            raise InvalidConfig(f"`timeout_s` must be > 0, got {timeout_s}.")
        if retries < 0:
            raise InvalidConfig(f"`retries` must be >= 0, got {retries}.")
        self._client = client
        self._num_threads = num_threads
        self._timeout_s = timeout_s
        self._retries = retries
        self._sleep = sleep

    def supports(self, backend: PartitionBackend) -> bool:
        """Return whether that is an external worker."""
        return backend.kind == "external"

    def execute(self, tasks: Sequence[PartitionTask]) -> list[PartitionTaskResult]:
        """Return the result of each task.

        Raises:
            WorkerFailed: If a task is not an external worker's, or failed each time.
            MissingEndpoint: If an external worker has no endpoint.
        """
        calls = [(task.context.partition_id, (_endpoint(task), task)) for task in tasks]
        return run_at_once(self._carry_out, calls, self._num_threads)

    def _carry_out(self, call: tuple[str, PartitionTask]) -> PartitionTaskResult:
        endpoint, task = call
        pauses_s = iter([FIRST_PAUSE_S * PAUSE_GROWTH**i for i in range(self._retries)])
        while True:
            outcome = self._attempt(endpoint, task)
            if isinstance(outcome, PartitionTaskResult):
                return outcome
            if isinstance(outcome, PartitionExecutorError):
                raise outcome
            pause_s = next(pauses_s, None)
            if pause_s is None or not isinstance(outcome, Exception):
                message = str(outcome) or repr(outcome)
                raise WorkerFailed(task.context.partition_id, message) from outcome
            self._sleep(pause_s)

    def _attempt(self, endpoint: str, task: PartitionTask) -> PartitionTaskResult | BaseException:
        """Call the client, and leave it alone when its time is up: no thread can be ended."""
        outcomes: list[PartitionTaskResult | BaseException] = []
        own = _with_own_rows(task)

        def call() -> None:
            try:
                outcomes.append(self._client.execute_partition(endpoint, own))
            except BaseException as err:
                outcomes.append(err)

        thread = threading.Thread(target=call, name="elche-endpoint", daemon=True)
        thread.start()
        thread.join(self._timeout_s)
        timeout = TimeoutError(f"no result within {self._timeout_s:g} s")
        return outcomes[0] if outcomes else timeout


def _endpoint(task: PartitionTask) -> str:
    partition, backend = task.context.partition_id, task.context.backend
    if backend.kind != "external":
        reason = "endpoint executor can only run External partition backends"
        raise WorkerFailed(partition, reason)
    if not backend.endpoint:
        raise MissingEndpoint(partition)
    return backend.endpoint


def _with_own_rows(task: PartitionTask) -> PartitionTask:
    """Return the task with rows of its own, as an attempt that fails may have changed them."""
    if task.is_persisting:
        return task
    state = task.payload.state
    return replace(task, payload=replace(task.payload, state=state.slice(0, state.num_rows)))
