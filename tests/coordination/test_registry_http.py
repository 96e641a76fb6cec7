"""The registry over HTTP does as the one in this process."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from lightning_elche.coordination.monitoring.http_server import HttpServer
from lightning_elche.coordination.registry.client import RemoteRegistry
from lightning_elche.coordination.registry.database import Database
from lightning_elche.coordination.registry.limits import LimitsConfig
from lightning_elche.coordination.registry.liveness import own_process
from lightning_elche.coordination.registry.place import AnyRegistry
from lightning_elche.coordination.registry.registry import Registry
from lightning_elche.coordination.registry.request import Request
from lightning_elche.coordination.registry.serve import is_loopback, serve_registry
from lightning_elche.exceptions import RegistryUnreachable
from tests.coordination.test_http_server import ask

TOKEN = "s3cret"
OK = b"HTTP/1.0 200 OK\r\n\r\n"
LIMITS = LimitsConfig(cooldown_s=0.0, per_host={"train": 1})


@pytest.fixture
def local(tmp_path: Path) -> Registry:
    return Registry(Database(tmp_path / "registry.db"), limits=LIMITS)


@pytest.fixture
def server(local: Registry) -> Iterator[HttpServer]:
    with closing(serve_registry(local, token=TOKEN, host="127.0.0.1", port=0)) as server:
        yield server


@pytest.fixture(params=["in process", "over HTTP"])
def registry(request: pytest.FixtureRequest, local: Registry, server: HttpServer) -> AnyRegistry:
    return local if request.param == "in process" else remote(server)


def remote(server: HttpServer, token: str | None = TOKEN) -> RemoteRegistry:
    return RemoteRegistry(f"http://127.0.0.1:{server.port}/", token, timeout_s=10.0)


def test_lease_is_given_kept_and_taken_back(registry: AnyRegistry) -> None:
    """Whichever way it is asked for."""
    first = registry.admit(Request(kind="train", run="a", gpus=1))
    assert (first.code, registry.admit(Request(kind="train")).code) == ("admitted", "host_limit")
    assert first.lease is not None
    assert registry.leases() == (first.lease,)
    registry.progress(first.lease.id)
    assert registry.heartbeat(first.lease.id, ram_peak_bytes=5, cores_used=0.5).is_held
    assert registry.release(first.lease.id, succeeded=True)
    assert not registry.release(first.lease.id, succeeded=None)
    assert not registry.heartbeat(first.lease.id).is_held
    assert registry.leases() == ()


def test_queue_is_kept_and_left(registry: AnyRegistry) -> None:
    """The first that waits is the first that starts."""
    held = registry.admit(Request(kind="train")).lease
    waiting = Request(kind="train", wait=True)
    first, second = registry.admit(waiting), registry.admit(waiting)
    assert held is not None
    registry.release(held.id, succeeded=True)
    assert registry.admit(replace(waiting, ticket=second.ticket)).code == "queued"
    assert first.ticket is not None
    registry.cancel(first.ticket)
    assert registry.admit(replace(waiting, ticket=second.ticket)).allowed


def test_edits_are_made_by_name(registry: AnyRegistry) -> None:
    """Each is undone by its counterpart, and a rule tells of it meanwhile."""
    registry.halt("moving house", "ann")
    assert registry.why(Request(kind="train")).reason == "halted by ann: moving house"
    assert [registry.resume(), registry.resume()] == [True, False]
    registry.pause("dust")
    assert registry.why(Request(kind="train")).code == "paused"
    registry.resume()
    registry.reserve("gauntlet", kind="train", for_s=60.0)
    assert registry.why(Request(kind="train")).code == "reserved"
    assert [registry.unreserve("gauntlet"), registry.unreserve("gauntlet")] == [True, False]
    assert not registry.reset_breaker("kind:train")
    assert len(registry.state()["edits"]) == 6


def test_why_has_all_rules_and_changes_nothing(registry: AnyRegistry) -> None:
    """It needs no token."""
    before = registry.state()["answers"]
    assert len(registry.why(Request(kind="train")).rules) == 13
    assert registry.state()["answers"] == before


@pytest.mark.parametrize(
    "request_", [Request(kind="none"), Request(kind="train", reservation="x" * 70_000)]
)
def test_argument_that_is_not_valid_is_the_same_error(
    server: HttpServer, request_: Request
) -> None:
    """Or says that it is too long to be sent."""
    with pytest.raises(ValueError, match=r"`kind` must be one of|at most 65536 bytes"):
        remote(server).admit(request_)


def test_wrong_types_are_refused_before_anything_is_done(
    local: Registry, server: HttpServer
) -> None:
    """By the signatures of the methods."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
    for body in (b'{"reason": 3}', b'{"reasons": "x"}', b"[]", b"{", b"[" * 50_000):
        status, answer = ask(server, "POST", "/v1/halt", headers=headers, body=body)
        assert (status, b"error" in answer) == (400, True)
    assert local.state()["halted"] is None


@pytest.mark.parametrize("token", [None, "wrong", ""])
def test_writes_need_the_token(local: Registry, server: HttpServer, token: str | None) -> None:
    """Reads do not."""
    registry = remote(server, token)
    assert registry.why(Request(kind="train")).allowed
    with pytest.raises(PermissionError, match="`ELCHE_TOKEN` must be that of the registry"):
        registry.admit(Request(kind="train"))
    assert local.leases() == ()


def test_registry_without_a_token_is_only_read(local: Registry) -> None:
    """And is not served to other machines."""
    with closing(serve_registry(local, token=None, host="127.0.0.1", port=0)) as server:
        with pytest.raises(PermissionError, match="can only be read"):
            remote(server).halt("no")
        assert remote(server).leases() == ()
    with pytest.raises(ValueError, match=r"Set `ELCHE_TOKEN` here"):
        serve_registry(local, token=None, host="0.0.0.0", port=0)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        *(("127.0.0.1", True), ("127.8.0.1", True), ("localhost", True), ("::1", True)),
        *(("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("127.evil.example", False)),
    ],
)
def test_loopback_is_told_from_the_rest(host: str, expected: bool) -> None:
    """A name that only looks like it included."""
    assert is_loopback(host) is expected


def test_nobody_there_is_unreachable() -> None:
    """A built-in ConnectionError, too."""
    with pytest.raises(RegistryUnreachable, match=r"http://127.0.0.1:9 does not answer"):
        RemoteRegistry("http://127.0.0.1:9", timeout_s=5.0).leases()
    assert issubclass(RegistryUnreachable, ConnectionError)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.0 200 OK\r\n\r\nhello",
        b'HTTP/1.0 200 OK\r\n\r\n{"result": {"x": 1}}',
        b"x" * 9,
    ],
)
def test_what_is_no_registry_is_unreachable(answer: bytes) -> None:
    """Whatever it says."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10.0)

        def reply() -> None:
            with listening.accept()[0] as peer:
                peer.recv(65536)
                peer.sendall(answer)

        thread = threading.Thread(target=reply)
        thread.start()
        port = listening.getsockname()[1]
        with pytest.raises(RegistryUnreachable):
            RemoteRegistry(f"http://127.0.0.1:{port}").why(Request(kind="train"))
        thread.join(10.0)


def test_registry_that_says_nothing_is_given_up_in_time() -> None:
    """Although it listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(RegistryUnreachable, match="TimeoutError"):
            RemoteRegistry(f"http://127.0.0.1:{port}", timeout_s=0.05).leases()


@pytest.mark.parametrize(
    "url", ["", "head:9473", "ftp://head", "http://", "http://h:x", "http://h?a"]
)
def test_address_that_is_none_is_refused(url: str) -> None:
    """At once."""
    with pytest.raises(ValueError, match="`url` must be such as http://head:9473, got"):
        RemoteRegistry(url)


def test_process_of_another_machine_is_heard_or_expires(server: HttpServer) -> None:
    """It cannot be seen, so that its lease stays until its signs of life end."""
    far = replace(own_process(), boot="another")
    lease = remote(server).admit(Request(kind="train", host="far", process=far)).lease
    assert lease is not None
    assert remote(server).leases() == (lease,)


def numbers(server: HttpServer) -> dict[tuple[str, ...], float]:
    text = ask(server, "GET", "/metrics")[1].decode()
    return {
        (one.name, *one.labels.values()): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def test_numbers_of_the_registry_are_served(registry: AnyRegistry, server: HttpServer) -> None:
    """For Prometheus, without a token."""
    registry.admit(Request(kind="train"))
    registry.admit(Request(kind="train"))
    found = numbers(server)
    assert found["elche_leases", "train"] == 1.0
    assert found["elche_leases", "eval"] == 0.0
    assert found["elche_admissions_total", "host_limit"] == 1.0
    assert [ask(server, "GET", path)[0] for path in ("/healthz", "/readyz", "/state")] == [200] * 3


def test_openings_of_a_breaker_are_counted_for_ever(
    registry: AnyRegistry, server: HttpServer
) -> None:
    """Closing it by hand takes none back."""
    for _ in range(5):
        lease = registry.admit(Request(kind="train", host="far")).lease
        assert lease is not None
        registry.release(lease.id, succeeded=False)
    assert numbers(server)["elche_breaker_state", "kind:train"] == 2.0
    assert registry.reset_breaker("kind:train")
    found = numbers(server)
    assert ("elche_breaker_state", "kind:train") not in found
    assert found["elche_breaker_opens_total", "kind:train"] == 1.0
