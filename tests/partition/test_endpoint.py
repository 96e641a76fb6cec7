"""Carrying out tasks of external workers."""

from __future__ import annotations

import threading

import pytest

from lightning_elche.partition import errors
from lightning_elche.partition.endpoint import EndpointExecutor
from lightning_elche.partition.executor import PartitionTask, PartitionTaskResult, run_task
from lightning_elche.partition.plan import PartitionId
from lightning_elche.partition.worker import LOCAL_CPU, PartitionBackend
from tests.partition.tables import tasks

WAIT_S = 20.0  # only ever used up by a failing test


def external(*endpoints: str | None) -> list[PartitionTask]:
    """Return tasks of external workers."""
    return tasks(backends=[PartitionBackend("external", None, one) for one in endpoints])


class Here:
    """A client whose endpoints are this process; each fails some times first.

    Rows are changed before it fails, as when a result is lost on its way back.
    """

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.asked: list[str] = []

    def execute_partition(self, endpoint: str, task: PartitionTask) -> PartitionTaskResult:
        self.asked.append(endpoint)
        result = run_task(task)
        if self.failures:
            raise self.failures.pop(0)
        return result


def test_each_task_goes_to_its_endpoint() -> None:
    """A client is asked once for each task, and results keep the order of tasks."""
    client = Here()
    results = EndpointExecutor(client, num_threads=1).execute(external("a", "b", "c"))
    assert client.asked == ["a", "b", "c"]
    assert [r.payload.state.columns["x"].tolist() for r in results] == [
        [0.0, 2.0, 4.0, 6.0],
        [8.0, 10.0, 12.0],
        [14.0, 16.0, 18.0],
    ]


def test_failed_task_is_tried_again_after_growing_pauses() -> None:
    """The pauses are 0.1, 0.4 and 1.6 seconds, and each attempt starts from the task's rows."""
    pauses: list[float] = []
    client = Here(OSError("1"), OSError("2"), OSError("3"))
    executor = EndpointExecutor(client, num_threads=1, sleep=pauses.append)
    results = executor.execute(external("a", "b", "c"))
    assert pauses == [0.1, 0.4, 1.6]
    assert results[0].payload.state.columns["x"].tolist() == [0.0, 2.0, 4.0, 6.0]


def test_task_that_fails_each_time_is_named() -> None:
    """After the last attempt its error is the cause of one that names the partition."""
    pauses: list[float] = []
    client = Here(OSError("1"), OSError("2"))
    executor = EndpointExecutor(client, num_threads=1, retries=1, sleep=pauses.append)
    with pytest.raises(errors.WorkerFailed) as caught:
        executor.execute(external("a", "b", "c"))
    assert str(caught.value) == "partition PartitionId(0) worker failed: 2"
    assert isinstance(caught.value.__cause__, OSError)
    assert pauses == [0.1]


def test_refusal_is_not_tried_again() -> None:
    """An error by which the client says that asking again is no use ends the task."""
    client = Here(errors.WorkerFailed(PartitionId(0), "no such phase"))
    with pytest.raises(errors.WorkerFailed, match="no such phase"):
        EndpointExecutor(client, num_threads=1).execute(external("a", "b", "c"))
    assert client.asked.count("a") == 1


class Stuck:
    """A client that does not come back until it is released."""

    def __init__(self) -> None:
        self.released = threading.Event()

    def execute_partition(self, endpoint: str, task: PartitionTask) -> PartitionTaskResult:
        self.released.wait(WAIT_S)
        return run_task(task)


def test_attempt_that_takes_too_long_is_given_up() -> None:
    """An endpoint that does not answer fails after its time, on a thread that holds up nothing."""
    client = Stuck()
    executor = EndpointExecutor(client, num_threads=3, timeout_s=0.01, retries=0)
    with pytest.raises(errors.WorkerFailed) as caught:
        executor.execute(external("a", "b", "c"))
    client.released.set()
    assert str(caught.value) == "partition PartitionId(0) worker failed: no result within 0.01 s"


class Meeting:
    """A client whose first two calls wait for each other."""

    def __init__(self) -> None:
        self.both = threading.Barrier(2)

    def execute_partition(self, endpoint: str, task: PartitionTask) -> PartitionTaskResult:
        if endpoint != "c":
            self.both.wait(WAIT_S)
        return run_task(task)


def test_endpoints_are_asked_at_the_same_time() -> None:
    """As many endpoints as there are threads work at once."""
    assert len(EndpointExecutor(Meeting(), num_threads=2).execute(external("a", "b", "c"))) == 3


@pytest.mark.parametrize("endpoint", ["", None])
def test_worker_without_endpoint_is_refused_before_anything_runs(endpoint: str | None) -> None:
    """An external worker has an address, else no endpoint is asked."""
    client = Here()
    with pytest.raises(errors.MissingEndpoint) as caught:
        EndpointExecutor(client).execute(external("a", endpoint, "c"))
    assert caught.value.partition == PartitionId(1)
    assert client.asked == []


def test_local_task_is_refused() -> None:
    """Only tasks of external workers can be carried out."""
    executor = EndpointExecutor(Here())
    assert not executor.supports(LOCAL_CPU)
    with pytest.raises(errors.WorkerFailed) as caught:
        executor.execute(tasks())
    assert str(caught.value) == (
        "partition PartitionId(0) worker failed: "
        "endpoint executor can only run External partition backends"
    )


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"num_threads": 0}, "num_threads"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"retries": -1}, "retries"),
    ],
)
def test_executor_is_refused_with_the_name_of_a_bad_value(
    options: dict[str, int], named: str
) -> None:
    """A value outside its range is named."""
    with pytest.raises(errors.InvalidConfig, match=f"`{named}` must be"):
        EndpointExecutor(Here(), **options)  # type: ignore[arg-type]
