"""A worker that speaks HTTP, as the documentation describes it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import numpy as np

__all__ = ["Worker", "serving"]


class Worker(BaseHTTPRequestHandler):
    """What the documentation says a worker does; `faults` change its answers."""

    stored: ClassVar[dict[str, bytes]]
    requests: ClassVar[list[tuple[str, str]]]
    faults: ClassVar[dict[str, Any]]
    headers_seen: ClassVar[dict[str, str]]
    endpoint: ClassVar[str]

    def do_PUT(self) -> None:
        self.requests.append(("PUT", self.path))
        self.headers_seen.update(self.headers.items())
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if self.faults.get("statuses"):
            self.answer(b"", self.faults["statuses"].pop(0))
            return
        assert hashlib.sha256(data).hexdigest() == self.headers["X-Elche-Sha256"]
        phases = self.headers["X-Elche-Phases"].split(",")
        for name in phases:
            data = PHASES[name](data)
        self.stored[self.path] = data
        receipt = {
            "binding": self.headers["X-Elche-Binding"],
            "length": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "elapsed_us": list(range(11, 11 + len(phases))),
        }
        self.answer(json.dumps(receipt | self.faults.get("receipt", {})).encode(), 201)

    def do_GET(self) -> None:
        self.requests.append(("GET", self.path))
        self.answer(self.faults.get("data", self.stored[self.path]), 200)

    def answer(self, data: bytes, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def double_bytes(data: bytes) -> bytes:
    """Double x of a table of two columns in its bytes, as a worker without this package would."""
    rows = len(data) // 16
    x = np.frombuffer(data, "<f4", count=rows, offset=8 * rows) * np.float32(2)
    return data[: 8 * rows] + x.tobytes() + data[12 * rows :]


PHASES: dict[str, Callable[[bytes], bytes]] = {
    "double": double_bytes,
    "keep": bytes,
    "store": bytes,
}


@contextlib.contextmanager
def serving() -> Iterator[type[Worker]]:
    """Yield the class of a server's handlers; the server is at its `endpoint`."""

    class Own(Worker):
        stored: ClassVar[dict[str, bytes]] = {}
        requests: ClassVar[list[tuple[str, str]]] = []
        faults: ClassVar[dict[str, Any]] = {}
        headers_seen: ClassVar[dict[str, str]] = {}

    with ThreadingHTTPServer(("127.0.0.1", 0), Own) as server:
        Own.endpoint = f"http://127.0.0.1:{server.server_address[1]}/base/"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield Own
        finally:
            server.shutdown()
            thread.join(20)
