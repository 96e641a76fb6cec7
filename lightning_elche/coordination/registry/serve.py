"""The registry of a host over HTTP, for other hosts."""

from __future__ import annotations

import functools
import inspect
import ipaddress
import json
import typing
from collections.abc import Callable, Mapping
from dataclasses import field, fields, is_dataclass, make_dataclass

from lightning_elche.coordination.monitoring.exposition import expose
from lightning_elche.coordination.monitoring.http_message import (
    Call,
    Reply,
    has_token,
    json_reply,
    refusal,
)
from lightning_elche.coordination.monitoring.http_run_routes import metrics_reply
from lightning_elche.coordination.monitoring.http_server import HttpServer, Routes
from lightning_elche.coordination.monitoring.metrics import METRICS
from lightning_elche.coordination.monitoring.metrics_registry import samples_of_registry
from lightning_elche.coordination.registry.registry import Registry
from lightning_elche.coordination.registry.wire import from_wire, to_wire

__all__ = ["PATH", "is_loopback", "registry_routes", "serve_registry"]

PATH = "/v1/"
READS = ("why", "leases", "state")
WRITES = (
    *("admit", "cancel", "progress", "heartbeat", "release"),
    *("reserve", "unreserve", "halt", "pause", "resume", "reset_breaker"),
)


def is_loopback(host: str) -> bool:
    """Return whether an address is of this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def serve_registry(registry: Registry, *, token: str | None, host: str, port: int) -> HttpServer:
    """Serve a registry, to readers without the token and to all others with it.

    Args:
        registry: What is served.
        token: A secret; `None` to let nobody write.
        host: Address to listen on.
        port: Port; 0 for one that is free.

    Raises:
        ValueError: If other machines could reach it and there is no token.
        OSError: If the port cannot be had.
    """
    if token is None and not is_loopback(host):
        raise ValueError(
            f"`host` must be of this machine, such as 127.0.0.1, where there is no token, got "
            f"{host!r}. Set `ELCHE_TOKEN` here and on the other machines."
        )
    return HttpServer(registry_routes(registry, token), host=host, port=port)


def registry_routes(registry: Registry, token: str | None) -> Routes:
    """Return what answers for a registry: its methods, and what monitoring asks for."""
    methods = {
        ("POST", PATH + name): functools.partial(_answer, registry, name, token)
        for name in (*READS, *WRITES)
    }
    return {
        **methods,
        ("GET", "/state"): lambda _: json_reply(registry.state()),
        ("GET", "/metrics"): lambda _: metrics_reply(
            expose(METRICS, samples_of_registry(registry.state()))
        ),
        ("GET", "/healthz"): lambda _: json_reply({"ok": bool(registry.state())}),
        ("GET", "/readyz"): lambda _: json_reply({"ok": bool(registry.state())}),
    }


def _answer(registry: Registry, name: str, token: str | None, call: Call) -> Reply:
    if name in WRITES:
        if token is None:
            return refusal(403, "This registry can only be read: it was started without a token.")
        if not has_token(call, token):
            return refusal(401, "`ELCHE_TOKEN` must be that of the registry.")
    try:
        arguments = _arguments(name, call.body)
        result = getattr(registry, name)(**arguments)
    except ValueError as err:
        return refusal(400, str(err))
    except TimeoutError as err:
        return refusal(503, str(err))
    return json_reply({"result": _plain(result)})


def _arguments(name: str, body: bytes) -> dict[str, object]:
    """Return the arguments of a method from JSON, each of the type that the method wants."""
    try:
        data = json.loads(body)
    except RecursionError as err:
        raise ValueError("the body is nested too deeply") from err
    given = from_wire(_form(name), data)
    return {one.name: getattr(given, one.name) for one in fields(given)}


@functools.cache
def _form(name: str) -> type[typing.Any]:
    """Return a dataclass with the arguments of a method of the registry."""
    method: Callable[..., object] = getattr(Registry, name)
    hints = typing.get_type_hints(method)
    parameters = list(inspect.signature(method).parameters.values())[1:]  # but `self`
    columns: list[typing.Any] = []
    for one in parameters:
        is_needed = one.default is inspect.Parameter.empty
        default = field() if is_needed else field(default=one.default)
        columns.append((one.name, hints[one.name], default))
    return make_dataclass(name, columns, frozen=True, kw_only=True)


def _plain(result: object) -> object:
    if is_dataclass(result):
        return to_wire(result)
    if isinstance(result, Mapping):
        return result
    return [_plain(one) for one in result] if isinstance(result, tuple) else result
