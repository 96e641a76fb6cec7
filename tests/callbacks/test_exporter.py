"""What a run shows to monitoring systems while it trains."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, Trainer
from prometheus_client.parser import text_string_to_metric_families

from lightning_elche.callbacks.coordination import Coordination
from lightning_elche.callbacks.exporter_facts import RunFacts
from lightning_elche.callbacks.run_events import emit
from lightning_elche.cli.main import main
from lightning_elche.coordination.atomic_file import replace_file
from lightning_elche.coordination.bandwidth.budget import BandwidthBudget
from lightning_elche.coordination.config import CoordinationConfig
from lightning_elche.coordination.export import ExportConfig
from lightning_elche.coordination.health import Pulse, healthz
from lightning_elche.coordination.lifecycle import RunState
from lightning_elche.coordination.monitoring.http_run_routes import run_routes
from lightning_elche.coordination.monitoring.http_server import HttpServer
from lightning_elche.strategies.throttled_io import ThrottledCheckpointIO
from tests.distributed.threads import FakeClock
from tests.ranks import Recorder, fit, make_trainer

LAST_BATCH = 5


class Looks(Callback):
    """Calls a function after the last batch but one."""

    def __init__(self, look: Callable[[], None]) -> None:
        self.look = look

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == LAST_BATCH:
            self.look()


def train(folder: Path, look: Callable[[], None] = lambda: None, **options: Any) -> Coordination:
    coordination = Coordination(CoordinationConfig(export=ExportConfig(**options)))
    fit(
        1,
        size=24,
        val_size=4,
        strategy="auto",
        callbacks=[coordination, Looks(look)],
        default_root_dir=str(folder),
    )
    return coordination


def get(port: int, path: str) -> tuple[int, str]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10.0)) as connection:
        connection.request("GET", path)
        reply = connection.getresponse()
        return reply.status, reply.read().decode()


def numbers(text: str) -> dict[str, float]:
    families = text_string_to_metric_families(text)
    return {one.name: one.value for family in families for one in family.samples}


@pytest.fixture(autouse=True)
def _coord_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELCHE_COORD_DIR", str(tmp_path / "coord"))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def test_run_is_served_while_it_trains_and_not_after(tmp_path: Path) -> None:
    """Numbers, state and probes; `elche coord` sees the same, and its end."""
    port, seen = free_port(), dict[str, tuple[int, str]]()

    def look() -> None:
        seen.update({path: get(port, path) for path in ("/metrics", "/healthz", "/readyz")})
        seen["cli"] = main(["coord", "status", str(tmp_path)]), ""

    train(tmp_path, look, port=port)
    assert numbers(seen["/metrics"][1])["elche_steps_total"] == LAST_BATCH
    assert [seen[path][0] for path in ("/metrics", "/healthz", "/readyz", "cli")] == [
        *(200, 200, 200),
        0,
    ]
    assert main(["coord", "status", str(tmp_path)]) == 1
    with pytest.raises(ConnectionRefusedError):
        get(port, "/metrics")


@pytest.mark.parametrize("kind", ["checkpoint_saved", "checkpoint"])
def test_last_checkpoint_is_told_whoever_saves_it(tmp_path: Path, kind: str) -> None:
    """The Trainer, or `PartitionCheckpoint` in the background."""
    port, seen, begun = free_port(), list[str](), time.time()

    def look() -> None:
        emit(kind, path=str(tmp_path / "a.ckpt"), bytes=1, seconds=0.1)
        seen.append(get(port, "/metrics")[1])

    train(tmp_path, look, port=port)
    told = numbers(seen[0])["elche_last_checkpoint_timestamp_seconds"]
    assert begun <= told <= time.time()


def test_uploads_are_counted(tmp_path: Path) -> None:
    """In bytes, by priority, as soon as they have arrived."""
    io = ThrottledCheckpointIO(None, "memory://exporter", budget=BandwidthBudget())
    trainer = make_trainer(1, strategy="auto", default_root_dir=str(tmp_path), plugins=[io])
    facts = RunFacts(trainer, Recorder())
    io.save_checkpoint({"x": 1}, tmp_path / "a.ckpt")
    assert io.drain(10.0)
    found = facts.samples()["transfer_bytes_total"]
    assert found == {("background",): (tmp_path / "a.ckpt").stat().st_size}


def test_port_that_is_taken_costs_a_warning_and_not_the_run(tmp_path: Path) -> None:
    """As when two runs on a machine have the same configuration."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        with pytest.warns(UserWarning, match=f"Nothing is served at `port` {port}"):
            train(tmp_path, port=port)


def test_textfile_is_there_while_the_run_is(tmp_path: Path) -> None:
    """Afterwards it would tell for ever what holds no more, and raise alerts."""
    path, seen = tmp_path / "collector" / "elche.prom", list[str]()
    path.parent.mkdir()
    train(tmp_path / "run", lambda: seen.append(path.read_text()), textfile=str(path))
    assert numbers(seen[0])["elche_run_info"] == 1.0
    assert list(path.parent.iterdir()) == []


def test_textfile_that_cannot_be_written_is_an_error_before_training(tmp_path: Path) -> None:
    """Rather than silence for hours."""
    with pytest.raises(FileNotFoundError, match=r"elche\.prom"):
        train(tmp_path, textfile=str(tmp_path / "none" / "elche.prom"))


def test_run_that_hangs_is_unhealthy_within_ten_seconds() -> None:
    """Over HTTP, by the rule that the run uses; the clock is the test's."""
    clock = FakeClock()
    pulse = Pulse(clock)
    routes = run_routes(
        metrics=str,
        state=dict,
        health=lambda: healthz(
            RunState.RUNNING, beats=pulse.beats, age_s=pulse.age_s, median_s=pulse.median_s()
        ),
        is_ready=lambda: True,
    )
    with closing(HttpServer(routes, host="127.0.0.1", port=0)) as server:
        for _ in range(3):
            clock.now += 0.1
            pulse.beat()
        found = []
        for _ in range(3):
            found.append(get(server.port, "/healthz")[0])
            clock.now += 5.01
    assert found == [200, 200, 503]


def test_file_is_never_seen_in_part(tmp_path: Path) -> None:
    """By a reader who reads all the time."""
    path, is_over = tmp_path / "elche.prom", threading.Event()
    contents = [b"a" * 200_000, b"b" * 100_000]
    replace_file(path, contents[0])

    def write() -> None:
        for i in range(200):
            replace_file(path, contents[i % 2])
        is_over.set()

    thread = threading.Thread(target=write)
    thread.start()
    seen = set()
    while not is_over.is_set():
        seen.add(path.read_bytes())
    thread.join(10.0)
    assert seen <= set(contents)
