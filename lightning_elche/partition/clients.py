"""Clients of external workers: anything that fsspec reaches, and HTTP."""

from __future__ import annotations

import hashlib
import http.client
import json
import posixpath
from collections.abc import Mapping
from urllib.parse import quote, urlsplit

import fsspec  # type: ignore[import-untyped]  # it has no types

from lightning_elche.partition.errors import InvalidConfig, WorkerFailed
from lightning_elche.partition.executor import (
    PartitionTask,
    PartitionTaskResult,
    PhaseReport,
    run_task,
)

__all__ = ["FsspecClient", "HttpClient"]

RECEIPT_BYTES = 1 << 20
RETRIED = frozenset({408, 425, 429})
_CONNECTIONS = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}


class FsspecClient:
    """Calls the phases here and stores the rows where an fsspec URL leads.

    The file of a partition is `<endpoint>/<run>/step-<step>/part-<id>-<sha256>`: the same rows are
    stored once, however often they are sent.

    Args:
        run: Name of the run.
        storage_options: What the file system needs, such as credentials.
        read_back: Whether the stored bytes are read and compared.

    Example:
        >>> client = FsspecClient("run-7", read_back=True)
    """

    def __init__(
        self,
        run: str,
        *,
        storage_options: Mapping[str, object] | None = None,
        read_back: bool = False,
    ) -> None:
        self._run = _checked_run(run)
        self._options = dict(storage_options or {})
        self._read_back = read_back

    def execute_partition(self, endpoint: str, task: PartitionTask) -> PartitionTaskResult:
        """Return the result of a task whose rows are stored."""
        result = run_task(task)
        data = result.payload.state.to_bytes()
        files, root = fsspec.core.url_to_fs(endpoint, **self._options)
        path = posixpath.join(root, self._file(result, hashlib.sha256(data).hexdigest()))
        if not self._holds(files, path, data):
            files.makedirs(posixpath.dirname(path), exist_ok=True)
            files.pipe_file(path, data)
            if not self._holds(files, path, data):
                raise OSError(f"{path} does not hold the {len(data)} bytes that were written")
        return result

    def _file(self, result: PartitionTaskResult, sha256: str) -> str:
        payload = result.payload
        number = payload.assignment.partition_id.value
        return f"{self._run}/step-{payload.step:08d}/part-{number:04d}-{sha256}"

    def _holds(self, files: fsspec.AbstractFileSystem, path: str, data: bytes) -> bool:
        files.invalidate_cache(posixpath.dirname(path))
        if not files.exists(path) or files.size(path) != len(data):
            return False
        return not self._read_back or files.cat_file(path) == data


class HttpClient:
    """Sends rows to a worker that speaks HTTP, which calls the phases by their names.

    `PUT <endpoint>/v1/<run>/<step>/<partition>` has the rows as they lie in memory as its body, and
    headers with their length, SHA-256 and binding and the names of the phases. The answer is a JSON
    object: `binding` of the request, `length` and `sha256` of what is stored, and `elapsed_us` of
    each phase. If the phases change the rows, `GET` of the same address returns them.

    Args:
        run: Name of the run.
        timeout_s: Seconds that the worker may be silent.
        headers: Sent with each request, such as credentials.

    Example:
        >>> client = HttpClient("run-7", headers={"Authorization": "Bearer ..."})
    """

    def __init__(
        self, run: str, *, timeout_s: float = 600.0, headers: Mapping[str, str] | None = None
    ) -> None:
        self._run = _checked_run(run)
        self._timeout_s = timeout_s
        self._headers = dict(headers or {})

    def execute_partition(self, endpoint: str, task: PartitionTask) -> PartitionTaskResult:
        """Return the result of a task that the worker has carried out.

        Raises:
            WorkerFailed: If the worker refuses the request.
        """
        data = task.payload.state.to_bytes()
        receipt = json.loads(self._request("PUT", endpoint, task, data, RECEIPT_BYTES))
        sha256 = _checked_receipt(receipt, task)
        if sha256 != hashlib.sha256(data).hexdigest():
            if task.is_persisting:
                raise ValueError(f"the worker stored other rows, with SHA-256 {sha256}")
            data = self._request("GET", endpoint, task, None, len(data))
            if hashlib.sha256(data).hexdigest() != sha256:
                raise ValueError(f"the worker returned other rows than those of SHA-256 {sha256}")
        reports = [PhaseReport.of_phase(task, i, us) for i, us in enumerate(receipt["elapsed_us"])]
        payload = task.payload.at(task.result_step, task.payload.state.with_bytes(data))
        return PartitionTaskResult(payload, tuple(reports))

    def _request(
        self, method: str, endpoint: str, task: PartitionTask, body: bytes | None, limit: int
    ) -> bytes:
        """Return the body of the answer, of at most `limit` bytes."""
        partition, step = task.context.partition_id, task.context.step
        url = urlsplit(endpoint)
        if url.scheme not in _CONNECTIONS or not url.hostname:
            raise WorkerFailed(partition, "`endpoint` must be an http or https URL")
        path = f"{url.path.rstrip('/')}/v1/{quote(self._run)}/{step}/{partition.value}"
        connection = _CONNECTIONS[url.scheme](url.hostname, url.port, timeout=self._timeout_s)
        try:
            headers = self._headers if body is None else self._headers | _body_headers(task, body)
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            data: bytes = answer.read(limit + 1)
        finally:
            connection.close()
        if answer.status not in (200, 201):
            reason = f"{method} {path} returned {answer.status} {answer.reason}"
            if 400 <= answer.status < 500 and answer.status not in RETRIED:
                raise WorkerFailed(partition, reason)
            raise OSError(reason)
        if len(data) > limit:
            raise ValueError(f"{method} {path} returned more than {limit} bytes")
        return data


def _body_headers(task: PartitionTask, body: bytes) -> dict[str, str]:
    return {
        "Content-Type": "application/octet-stream",
        "Content-Length": str(len(body)),
        "X-Elche-Sha256": hashlib.sha256(body).hexdigest(),
        "X-Elche-Binding": f"{task.payload.binding:#018x}",
        "X-Elche-Phases": ",".join(quote(phase.name, safe="") for phase in task.phases),
    }


def _checked_receipt(receipt: object, task: PartitionTask) -> str:
    """Return the SHA-256 of a receipt that answers this task."""
    if not isinstance(receipt, dict):
        raise ValueError(f"the receipt must be an object, got {receipt!r}")
    expected = {"binding": f"{task.payload.binding:#018x}", "length": task.payload.state.num_bytes}
    for key, value in expected.items():
        if receipt.get(key) != value:
            raise ValueError(f"the receipt's `{key}` must be {value!r}, got {receipt.get(key)!r}")
    elapsed, sha256 = receipt.get("elapsed_us"), receipt.get("sha256")
    if not isinstance(elapsed, list) or [type(us) for us in elapsed] != [int] * len(task.phases):
        raise ValueError(f"the receipt's `elapsed_us` must be one integer a phase, got {elapsed!r}")
    if not isinstance(sha256, str):
        raise ValueError(f"the receipt's `sha256` must be text, got {sha256!r}")
    return sha256


def _checked_run(run: str) -> str:
    if not run or run in (".", "..") or "/" in run:
        raise InvalidConfig(f"`run` must be a name without '/', got {run!r}.")
    return run
