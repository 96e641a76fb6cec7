"""The registry of another host."""

from __future__ import annotations

import http.client
import json
import math
import socket
import urllib.parse
from collections.abc import Mapping
from contextlib import closing
from typing import Any, TypeVar

from lightning_elche.coordination.monitoring.http_message import JSON_TYPE, MAX_BODY_BYTES
from lightning_elche.coordination.registry.edits import user_name
from lightning_elche.coordination.registry.request import Beat, Decision, Lease, Request
from lightning_elche.coordination.registry.wire import from_wire
from lightning_elche.exceptions import RegistryUnreachable

__all__ = ["RemoteRegistry"]

PATH = "/v1/"
MAX_ANSWER_BYTES = 1 << 24
REFUSED = 400
NEEDS_TOKEN = (401, 403)
OK = 200

T = TypeVar("T")


class RemoteRegistry:
    """The registry that `elche coord serve` serves on another host, with the same methods.

    Args:
        url: Where, such as "http://head:9473".
        token: What it wants to see from those who change it; `None` to read only.
        timeout_s: Longest wait for a connection, and for each part of an answer.

    Raises:
        ValueError: If `url` or `timeout_s` is not valid.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from lightning_elche.coordination.registry.database import Database
        >>> from lightning_elche.coordination.registry.registry import Registry
        >>> from lightning_elche.coordination.registry.serve import serve_registry
        >>> local = Registry(Database(Path(tempfile.mkdtemp()) / "registry.db"))
        >>> server = serve_registry(local, token="secret", host="127.0.0.1", port=0)
        >>> remote = RemoteRegistry(f"http://127.0.0.1:{server.port}", "secret")
        >>> remote.admit(Request(kind="train")).code, len(local.leases())
        ('admitted', 1)
        >>> server.close()
    """

    def __init__(self, url: str, token: str | None = None, timeout_s: float = 5.0) -> None:
        if not 0.0 < timeout_s < math.inf:
            raise ValueError(f"`timeout_s` must be > 0 and finite, got {timeout_s}.")
        self._scheme, self._host, self._port, self._path = _parsed(url)
        self._url, self._token, self._timeout_s = url, token, timeout_s

    def admit(self, request: Request) -> Decision:
        """Return whether a task may start, with a lease if so."""
        return self._record(Decision, self._call("admit", request=request.to_dict()))

    def why(self, request: Request) -> Decision:
        """Return what `admit` would, with all rules as they stand; nothing changes."""
        return self._record(Decision, self._call("why", request=request.to_dict()))

    def cancel(self, ticket: str) -> None:
        """Give up a place in the queue."""
        self._call("cancel", ticket=ticket)

    def progress(self, lease_id: str) -> None:
        """Take in that a start has succeeded."""
        self._call("progress", lease_id=lease_id)

    def heartbeat(
        self,
        lease_id: str,
        *,
        requested: float | None = None,
        utilization_pct: float | None = None,
        vram_peak_bytes: int | None = None,
        ram_peak_bytes: int | None = None,
        cores_used: float | None = None,
    ) -> Beat:
        """Take a sign of life, and what the task uses; as `Registry.heartbeat`."""
        beat = self._call(
            "heartbeat",
            lease_id=lease_id,
            requested=requested,
            utilization_pct=utilization_pct,
            vram_peak_bytes=vram_peak_bytes,
            ram_peak_bytes=ram_peak_bytes,
            cores_used=cores_used,
        )
        return self._record(Beat, beat)

    def release(self, lease_id: str, *, succeeded: bool | None) -> bool:
        """Take a lease back, and return whether it was held."""
        return bool(self._call("release", lease_id=lease_id, succeeded=succeeded))

    def leases(self) -> tuple[Lease, ...]:
        """Return the leases that are held, the oldest first."""
        return tuple(self._record(Lease, one) for one in self._call("leases"))

    def state(self) -> dict[str, Any]:
        """Return all there is to know, as JSON has it."""
        return dict(self._call("state"))

    def reserve(
        self,
        name: str,
        *,
        host: str | None = None,
        kind: str | None = None,
        gpus: int | None = None,
        for_s: float | None = None,
        by: str | None = None,
    ) -> None:
        """Keep a host, this one by default, or some of its GPUs; as `Registry.reserve`."""
        self._edit(
            "reserve",
            by,
            name=name,
            host=host or socket.gethostname(),
            kind=kind,
            gpus=gpus,
            for_s=for_s,
        )

    def unreserve(self, name: str, *, by: str | None = None) -> bool:
        """Drop a reservation, and return whether there was one."""
        return bool(self._edit("unreserve", by, name=name))

    def halt(self, reason: str, by: str | None = None) -> None:
        """Refuse all starts until `resume`; what runs goes on."""
        self._edit("halt", by, reason=reason)

    def pause(self, reason: str, by: str | None = None) -> None:
        """Do as `halt`, for something that will pass by itself."""
        self._edit("pause", by, reason=reason)

    def resume(self, by: str | None = None) -> bool:
        """Allow starts again, and return whether they were not."""
        return bool(self._edit("resume", by))

    def reset_breaker(self, key: str, *, by: str | None = None) -> bool:
        """Close a breaker, and return whether it remembered anything."""
        return bool(self._edit("reset_breaker", by, key=key))

    def __repr__(self) -> str:
        return f"RemoteRegistry({self._url!r})"

    def _record(self, kind: type[T], data: object) -> T:
        try:
            return from_wire(kind, data)
        except ValueError as err:
            raise RegistryUnreachable(
                f"The registry at {self._url} speaks another version: {err}"
            ) from err

    def _edit(self, method: str, by: str | None, /, **arguments: object) -> Any:  # noqa: ANN401  # as JSON has it
        who = by or f"{user_name()}@{socket.gethostname()}"
        return self._call(method, by=who, **arguments)

    def _call(self, method: str, /, **arguments: object) -> Any:  # noqa: ANN401  # as JSON has it
        """Return the result of a method over there.

        Raises:
            RegistryUnreachable: If there is no answer, or none that can be understood.
            PermissionError: If the token is not the right one.
            ValueError: If an argument is not valid there, or is too long.
        """
        sent = json.dumps(arguments).encode()
        if len(sent) > MAX_BODY_BYTES:
            raise ValueError(
                f"What is asked of a registry must have at most {MAX_BODY_BYTES} bytes, got "
                f"{len(sent)}."
            )
        try:
            status, body = self._post(self._path + PATH + method, sent)
            answer = json.loads(body)
        except (OSError, http.client.HTTPException, ValueError, RecursionError) as err:
            raise RegistryUnreachable(
                f"The registry at {self._url} does not answer: {type(err).__name__}: {err}"
            ) from err
        if not isinstance(answer, Mapping):
            raise RegistryUnreachable(f"What answers at {self._url} is no registry.")
        if status == OK and "result" in answer:
            return answer["result"]
        reason = f"{self._url}: {answer.get('error', f'status {status}')}"
        if status in NEEDS_TOKEN:
            raise PermissionError(reason)
        raise ValueError(reason) if status == REFUSED else RegistryUnreachable(reason)

    def _post(self, path: str, body: bytes) -> tuple[int, bytes]:
        kind = (
            http.client.HTTPSConnection if self._scheme == "https" else http.client.HTTPConnection
        )
        headers = {"Content-Type": JSON_TYPE, "Accept": JSON_TYPE}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        with closing(kind(self._host, self._port, timeout=self._timeout_s)) as connection:
            connection.request("POST", path, body=body, headers=headers)
            reply = connection.getresponse()
            content = reply.read(MAX_ANSWER_BYTES + 1)
        if len(content) > MAX_ANSWER_BYTES:
            raise ValueError(f"it sent more than {MAX_ANSWER_BYTES} bytes")
        return reply.status, content


def _parsed(url: str) -> tuple[str, str, int | None, str]:
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError as err:
        raise ValueError(f"`url` must be such as http://head:9473, got {url!r}.") from err
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"`url` must be such as http://head:9473, got {url!r}.")
    return parts.scheme, parts.hostname, port, parts.path.rstrip("/")
