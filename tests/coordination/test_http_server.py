"""The HTTP server, over real sockets."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from lightning_elche.coordination.health import Health
from lightning_elche.coordination.monitoring.http_message import Call, Reply, has_token, json_reply
from lightning_elche.coordination.monitoring.http_run_routes import run_routes
from lightning_elche.coordination.monitoring.http_server import HttpServer

ECHO = {("POST", "/echo"): lambda call: Reply(call.body)}
JSON = {"Content-Type": "application/json"}


def fail(_: Call) -> Reply:
    raise ArithmeticError("no numbers")


@contextmanager
def serving(routes: object, **options: int) -> Iterator[HttpServer]:
    server = HttpServer(routes, host="127.0.0.1", port=0, **options)
    with closing(server):
        yield server


def ask(server: HttpServer, method: str, path: str, **options: object) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10.0)
    with closing(connection):
        connection.request(method, path, **options)
        reply = connection.getresponse()
        return reply.status, reply.read()


def test_run_is_read_by_four_paths() -> None:
    """Numbers, state and two probes, one of which fails here; a query changes nothing."""
    routes = run_routes(
        metrics=lambda: "elche_leases 1\n",
        state=lambda: {"state": "RUNNING", "divergence": float("nan")},
        health=lambda: Health(ok=False, reason="stuck"),
        is_ready=lambda: True,
    )
    with serving(routes) as server:
        assert ask(server, "GET", "/metrics?x=1") == (200, b"elche_leases 1\n")
        assert json.loads(ask(server, "GET", "/state")[1]) == {
            "state": "RUNNING",
            "divergence": "nan",
        }
        assert ask(server, "GET", "/healthz") == (503, b'{"ok": false, "reason": "stuck"}\n')
        assert ask(server, "GET", "/readyz")[0] == 200
        assert ask(server, "POST", "/state", headers=JSON, body=b"{}")[0] == 405


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status"),
    [
        ("GET", "/none", {}, b"", 404),
        ("GET", "/echo", {}, b"", 405),
        ("PUT", "/echo", JSON, b"", 501),
        ("POST", "/echo", {"Content-Type": "text/plain"}, b"x", 415),
        ("POST", "/echo", {**JSON, "Content-Length": "x"}, b"", 411),
        ("POST", "/echo", JSON, b"x" * 101, 413),
        ("POST", "/echo", JSON, b"x" * 100, 200),
        ("POST", "/fails", JSON, b"", 500),
    ],
)
def test_request_that_does_not_fit_is_refused(
    method: str, path: str, headers: dict[str, str], body: bytes, status: int
) -> None:
    """With the status that says why, and the server goes on."""
    with serving({**ECHO, ("POST", "/fails"): fail}, max_body_bytes=100) as server:
        assert ask(server, method, path, headers=headers, body=body)[0] == status
        assert ask(server, "POST", "/echo", headers=JSON, body=b"on")[1] == b"on"


def test_more_requests_than_places_are_cut_off() -> None:
    """Sixteen that say nothing take all places; the next is closed without an answer."""
    with serving(ECHO) as server:
        address = "127.0.0.1", server.port
        idle = [socket.create_connection(address, timeout=10.0) for _ in range(16)]
        with socket.create_connection(address, timeout=10.0) as late:
            late.sendall(b"POST /echo HTTP/1.0\r\n")
            assert late.recv(1) == b""
        for one in idle:
            one.close()


def test_port_is_free_again_although_a_forked_child_lives() -> None:
    """As a worker of a data loader does."""
    ready, go = os.pipe(), os.pipe()
    with serving(ECHO) as server:
        port, pid = server.port, os.fork()
        if pid == 0:
            os.write(ready[1], b"1")
            os.read(go[0], 1)
            os._exit(0)
        os.read(ready[0], 1)
    HttpServer(ECHO, host="127.0.0.1", port=port).close()
    os.write(go[1], b"1")
    assert os.waitpid(pid, 0)[1] == 0


def test_port_that_is_taken_is_an_error() -> None:
    """At once, before anything is served."""
    with serving(ECHO) as server, pytest.raises(OSError, match="in use"):
        HttpServer(ECHO, host="127.0.0.1", port=server.port)


@pytest.mark.parametrize(
    ("given", "is_right"),
    [("Bearer s3cret", True), ("Bearer s3cre", False), ("", False), ("Bearer \xe9", False)],
)
def test_only_the_token_is_the_token(given: str, is_right: bool) -> None:
    """Not a part of it, and nothing at all neither."""
    assert has_token(Call(authorization=given), "s3cret") is is_right


def test_answer_is_strict_json() -> None:
    """Whatever is in it."""
    assert json_reply({"a": float("inf"), "b": "\ud800"}).body == b'{"a": "inf", "b": "\\ud800"}\n'
