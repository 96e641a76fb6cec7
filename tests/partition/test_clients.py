"""Clients of external workers, against real files and a real HTTP server."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from lightning_elche.partition import errors
from lightning_elche.partition.clients import FsspecClient, HttpClient
from lightning_elche.partition.endpoint import EndpointExecutor
from lightning_elche.partition.executor import PartitionPhase, PartitionTask
from lightning_elche.partition.plane import PartitionPlane
from lightning_elche.partition.worker import PartitionBackend, PartitionWorker
from tests.partition.http_worker import Worker, serving
from tests.partition.tables import DOUBLE, KEEP, PLAN, keep, table, tasks

SHA_OF_1 = hashlib.sha256(tasks()[1].payload.state.to_bytes()).hexdigest()


def task(endpoint: str = "", *phases: PartitionPhase) -> PartitionTask:
    """Return the task of partition 1, by default of only storing it."""
    backends = [PartitionBackend("external", None, endpoint)] * 3
    return tasks(*(phases or (KEEP,)), backends=backends)[1]


@pytest.fixture(params=["memory", "file"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder of each kind of file system."""
    return f"memory://{uuid.uuid4()}" if request.param == "memory" else tmp_path.as_uri()


def test_rows_are_stored_by_their_digest(root: str) -> None:
    """A task's rows lie in a file named after run, step, partition and digest."""
    result = FsspecClient("run-7").execute_partition(root, task())
    with fsspec.open(f"{root}/run-7/step-00000007/part-0001-{SHA_OF_1}") as file:
        assert file.read() == result.payload.state.to_bytes()


def test_phases_are_called_before_rows_are_stored(root: str) -> None:
    """What is stored is what the phases have made of the rows, at the step after."""
    result = FsspecClient("run-7").execute_partition(root, task("", DOUBLE))
    data = result.payload.state.to_bytes()
    name = f"step-00000008/part-0001-{hashlib.sha256(data).hexdigest()}"
    with fsspec.open(f"{root}/run-7/{name}") as file:
        stored = file.read()
    assert result.payload.state.columns["x"].tolist() == [8.0, 10.0, 12.0]
    assert stored == data


def stored_file(tmp_path: Path) -> Path:
    path = tmp_path / "run-7" / "step-00000007" / f"part-0001-{SHA_OF_1}"
    path.parent.mkdir(parents=True)
    return path


def test_rows_are_stored_once(tmp_path: Path) -> None:
    """The same rows of the same partition and step are not written again."""
    path = stored_file(tmp_path)
    FsspecClient("run-7").execute_partition(tmp_path.as_uri(), task())
    before = path.stat()
    FsspecClient("run-7").execute_partition(tmp_path.as_uri(), task())
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert path.stat().st_ino == before.st_ino


@pytest.mark.parametrize(
    ("left", "read_back"), [(b"torn", False), (bytes(48), True)], ids=["torn", "wrong"]
)
def test_bad_file_is_replaced(tmp_path: Path, left: bytes, read_back: bool) -> None:
    """A file of another length, or if it is read back of other bytes, is written anew."""
    path = stored_file(tmp_path)
    path.write_bytes(left)
    FsspecClient("run-7", read_back=read_back).execute_partition(tmp_path.as_uri(), task())
    assert hashlib.sha256(path.read_bytes()).hexdigest() == SHA_OF_1


def test_file_system_that_fails_is_named_by_partition(tmp_path: Path) -> None:
    """An address at which nothing can be stored is an error of its worker."""
    (tmp_path / "file").touch()
    endpoint = (tmp_path / "file").as_uri()
    executor = EndpointExecutor(FsspecClient("run-7"), retries=0)
    with pytest.raises(errors.WorkerFailed) as caught:
        executor.execute([task(endpoint)])
    assert caught.value.partition.value == 1
    assert isinstance(caught.value.__cause__, OSError)


@pytest.fixture
def worker() -> Iterator[type[Worker]]:
    """The class of a server's handlers; the server is at its `endpoint`."""
    with serving() as own:
        yield own


CLIENT = HttpClient("run 7", timeout_s=20.0, headers={"Authorization": "Bearer key"})
PATH = "/base/v1/run%207/7/1"


def test_rows_are_put_where_run_step_and_partition_say(worker: Any) -> None:
    """Rows that are only stored are sent once, and not fetched."""
    result = CLIENT.execute_partition(worker.endpoint, task())
    assert worker.requests == [("PUT", PATH)]
    assert worker.stored[PATH] == result.payload.state.to_bytes()
    assert (result.payload.step, result.reports[0].elapsed_us) == (7, 11)


def test_headers_say_what_is_sent(worker: Any) -> None:
    """Length, digest, binding and phases go with the rows, and what the user adds."""
    CLIENT.execute_partition(worker.endpoint, task())
    headers = worker.headers_seen
    assert headers["Content-Length"] == "48"
    assert headers["X-Elche-Sha256"] == SHA_OF_1
    assert headers["X-Elche-Binding"] == f"{task().payload.binding:#018x}"
    assert (headers["X-Elche-Phases"], headers["Authorization"]) == ("keep", "Bearer key")


def test_rows_that_the_worker_changed_are_fetched(worker: Any) -> None:
    """What named phases made of the rows comes back, at the step after."""
    result = CLIENT.execute_partition(worker.endpoint, task("", DOUBLE, DOUBLE))
    assert worker.requests == [("PUT", PATH), ("GET", PATH)]
    assert result.payload.state.columns["x"].tolist() == [16.0, 20.0, 24.0]
    assert (result.payload.step, [r.elapsed_us for r in result.reports]) == (8, [11, 12])


@pytest.mark.parametrize(
    ("faults", "phase", "text"),
    [
        ({"receipt": {"binding": "0x0"}}, KEEP, "`binding` must be"),
        ({"receipt": {"length": 47}}, KEEP, "`length` must be 48, got 47"),
        ({"receipt": {"sha256": "00"}}, KEEP, "stored other rows, with SHA-256 00"),
        ({"receipt": {"sha256": None}}, KEEP, "`sha256` must be text, got None"),
        (
            {"receipt": {"elapsed_us": []}},
            KEEP,
            r"`elapsed_us` must be one integer a phase, got \[\]",
        ),
        ({"data": bytes(48)}, DOUBLE, "returned other rows than those of SHA-256"),
        ({"data": bytes(49)}, DOUBLE, "returned more than 48 bytes"),
        ({"data": bytes(47)}, DOUBLE, "returned other rows than those of SHA-256"),
    ],
)
def test_wrong_answer_is_refused(
    worker: Any, faults: dict[str, Any], phase: PartitionPhase, text: str
) -> None:
    """A receipt that is not for these rows, or rows that are not those of the receipt, fail."""
    worker.faults.update(faults)
    with pytest.raises(ValueError, match=text):
        CLIENT.execute_partition(worker.endpoint, task("", phase))


@pytest.mark.parametrize("statuses", [[500], [503, 502, 500], [429, 408]])
def test_server_that_recovers_is_asked_again(worker: Any, statuses: list[int]) -> None:
    """After errors that pass the rows are stored, once."""
    worker.faults["statuses"] = list(statuses)
    pauses: list[float] = []
    executor = EndpointExecutor(CLIENT, sleep=pauses.append)
    executor.execute([task(worker.endpoint)])
    assert len(pauses) == len(statuses)
    assert list(worker.stored) == [PATH]


def test_server_that_refuses_is_not_asked_again(worker: Any) -> None:
    """After an error of the request there is no second one."""
    worker.faults["statuses"] = [403, 403]
    with pytest.raises(errors.WorkerFailed, match=f"PUT {PATH} returned 403 Forbidden"):
        EndpointExecutor(CLIENT).execute([task(worker.endpoint)])
    assert len(worker.requests) == 1


def test_server_that_is_not_there_is_an_error_of_its_worker() -> None:
    """A refused connection names the partition."""
    executor = EndpointExecutor(CLIENT, retries=0)
    with pytest.raises(errors.WorkerFailed) as caught:
        executor.execute([task("http://127.0.0.1:9/")])  # discard: nothing listens there
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize("endpoint", ["ftp://host", "file:///etc", "host:80", "http://"])
def test_other_addresses_are_refused(endpoint: str) -> None:
    """Only http and https are spoken."""
    with pytest.raises(errors.WorkerFailed, match="`endpoint` must be an http or https URL"):
        CLIENT.execute_partition(endpoint, task())


@pytest.mark.parametrize("client", [FsspecClient, HttpClient])
@pytest.mark.parametrize("run", ["", "..", "a/b"])
def test_run_that_is_no_name_is_refused(client: Callable[[str], object], run: str) -> None:
    """The name of a run is one part of a path."""
    with pytest.raises(errors.InvalidConfig, match="`run` must be a name"):
        client(run)


def test_state_goes_through_workers_and_back(worker: Any) -> None:
    """A step whose partitions are worked on behind an endpoint equals one that is made here."""
    far = [PartitionWorker.external(label, worker.endpoint) for label in "abc"]
    plane = PartitionPlane(table(), plan=PLAN.with_workers("abc"), workers=far)
    plane.add_phase("double", keep)  # the name counts, what it is here does not
    plane.run(2, EndpointExecutor(CLIENT))
    assert plane.state.columns["x"].tolist() == [4.0 * i for i in range(10)]
    assert len(worker.stored) == 6
