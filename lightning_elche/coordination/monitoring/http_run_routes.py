"""What a run answers over HTTP: it can be read, never commanded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict

from lightning_elche.coordination.health import Health
from lightning_elche.coordination.monitoring.exposition import CONTENT_TYPE
from lightning_elche.coordination.monitoring.http_message import Call, Reply, json_reply
from lightning_elche.coordination.monitoring.http_server import Routes

__all__ = ["metrics_reply", "run_routes"]

OK, UNAVAILABLE = 200, 503


def run_routes(
    *,
    metrics: Callable[[], str],
    state: Callable[[], Mapping[str, object]],
    health: Callable[[], Health],
    is_ready: Callable[[], bool],
) -> Routes:
    """Return what answers for a run.

    Args:
        metrics: Returns the numbers as text.
        state: Returns what `status.json` holds.
        health: Whether the run moves on.
        is_ready: Whether it trains, or pauses and would.
    """

    def healthz(_: Call) -> Reply:
        found = health()
        return json_reply(asdict(found), OK if found.ok else UNAVAILABLE)

    def readyz(_: Call) -> Reply:
        found = is_ready()
        return json_reply({"ok": found}, OK if found else UNAVAILABLE)

    return {
        ("GET", "/metrics"): lambda _: metrics_reply(metrics()),
        ("GET", "/state"): lambda _: json_reply(state()),
        ("GET", "/healthz"): healthz,
        ("GET", "/readyz"): readyz,
    }


def metrics_reply(text: str) -> Reply:
    """Return numbers as an answer."""
    return Reply(text.encode("utf-8", "backslashreplace"), content_type=CONTENT_TYPE)
