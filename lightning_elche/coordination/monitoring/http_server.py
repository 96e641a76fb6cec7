"""A small HTTP server on a daemon thread, which never holds up the end of the process."""

from __future__ import annotations

import functools
import http.server
import logging
import os
import socket
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from lightning_elche.coordination.monitoring.http_message import (
    JSON_TYPE,
    MAX_BODY_BYTES,
    Call,
    Reply,
    refusal,
)

__all__ = ["HttpServer", "Routes"]

MAX_AT_ONCE = 16
REQUEST_TIMEOUT_S = 5.0
POLL_S = 0.05

Routes: TypeAlias = Mapping[tuple[str, str], Callable[[Call], Reply]]
"""What answers, by method and path."""

log = logging.getLogger(__name__)
_open: weakref.WeakSet[_Server] = weakref.WeakSet()


class HttpServer:
    """Answers HTTP requests until it is closed.

    At most 16 requests are answered at once, and a peer that says nothing for 5 seconds is cut
    off. A forked child, such as a worker of a data loader, does not keep the port.

    Args:
        routes: What answers, by method and path; what it raises becomes status 500.
        host: Name or address that it listens on.
        port: Port that it listens on; 0 for one that is free.
        max_body_bytes: Longer requests are refused.

    Raises:
        OSError: If the port cannot be had.
    """

    def __init__(
        self, routes: Routes, *, host: str, port: int, max_body_bytes: int = MAX_BODY_BYTES
    ) -> None:
        self._server = _Server((host, port), routes, max_body_bytes)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(POLL_S,), name="elche-http", daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.server_address[1])

    def close(self, timeout_s: float = 2.0) -> None:
        """Stop listening; requests that are being answered are not waited for."""
        self._server.shutdown()
        self._thread.join(timeout_s)
        self._server.server_close()


@dataclass(frozen=True)
class _Site:
    routes: Routes
    max_body_bytes: int


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 2 * MAX_AT_ONCE

    def __init__(self, address: tuple[str, int], routes: Routes, max_body_bytes: int) -> None:
        self.site = _Site(routes, max_body_bytes)
        self._places = threading.BoundedSemaphore(MAX_AT_ONCE)
        self.address_family = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0][0]
        super().__init__(address, _Handler)
        _open.add(self)
        _watch_forks()

    def server_bind(self) -> None:
        # Not that of HTTPServer, which asks the name service for the name of the machine.
        super(http.server.HTTPServer, self).server_bind()
        self.server_name, self.server_port = str(self.server_address[0]), 0

    def process_request(self, request: object, client_address: object) -> None:
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)  # type: ignore[arg-type]  # as it came
        else:
            self.shutdown_request(request)  # type: ignore[arg-type]  # as it came

    def process_request_thread(self, request: object, client_address: object) -> None:
        try:
            super().process_request_thread(request, client_address)  # type: ignore[arg-type]  # as it came
        finally:
            self._places.release()

    def handle_error(self, request: object, client_address: object) -> None:
        del request
        log.debug("A request of %s was not answered.", client_address, exc_info=True)


class _Handler(http.server.BaseHTTPRequestHandler):
    timeout = REQUEST_TIMEOUT_S
    server_version, sys_version = "elche", ""
    server: _Server

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def _answer(self, method: str) -> None:
        reply = self._reply(method, self.path.partition("?")[0])
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body)

    def _reply(self, method: str, path: str) -> Reply:
        routes = self.server.site.routes
        answer = routes.get((method, path))
        if answer is None:
            is_known = any(known == path for _, known in routes)
            return refusal(405, "Not that method.") if is_known else refusal(404, "Not here.")
        body = self._body() if method == "POST" else b""
        if isinstance(body, Reply):
            return body
        try:
            return answer(Call(body=body, authorization=self.headers.get("Authorization", "")))
        except Exception as err:  # whatever it is, the caller is told and the server goes on
            log.warning("%s %s failed.", method, path, exc_info=True)
            return refusal(500, f"{type(err).__name__}: {err}")

    def _body(self) -> bytes | Reply:
        if self.headers.get_content_type() != JSON_TYPE:  # what a web page cannot send unasked
            return refusal(415, f"`Content-Type` must be {JSON_TYPE}.")
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdecimal()):
            return refusal(411, "`Content-Length` must be a number.")
        limit = self.server.site.max_body_bytes
        if int(length) > limit:
            return refusal(413, f"The body must have at most {limit} bytes, got {length}.")
        return self.rfile.read(int(length))

    def log_message(self, format: str, *args: object) -> None:
        log.debug(format, *args)


def _close_in_child() -> None:
    for server in tuple(_open):
        server.socket.close()
    _open.clear()


@functools.cache
def _watch_forks() -> None:
    os.register_at_fork(after_in_child=_close_in_child)
