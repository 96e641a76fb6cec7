"""Tests of `Coordination` on one device."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import LightningCLI
from torch.utils.data import DataLoader

from lightning_elche.callbacks.coordination import Coordination
from lightning_elche.callbacks.coordination_parts import HOOKS
from lightning_elche.control.requests import StopCause
from lightning_elche.coordination.config import CoordinationConfig
from lightning_elche.coordination.export import ExportConfig
from lightning_elche.coordination.host.governor import GovernorConfig
from lightning_elche.coordination.registry.config import RegistryConfig
from lightning_elche.coordination.registry.limits import LimitsConfig
from lightning_elche.coordination.registry.place import open_registry
from lightning_elche.coordination.registry.registry import Registry
from lightning_elche.coordination.registry.request import Request
from lightning_elche.coordination.run_index import list_runs
from lightning_elche.coordination.run_lock import RunLock
from lightning_elche.coordination.stopping.stop import StopConfig
from lightning_elche.exceptions import AdmissionDenied
from tests.ranks import Numbered, Recorder, make_loader, make_trainer


class Watching(Callback):
    """Reads the status of the run at a batch, and does something there."""

    def __init__(self, coordination: Coordination, at: int = 5) -> None:
        self.coordination, self.at = coordination, at
        self.status: dict[str, Any] = {}

    def on_train_batch_end(self, *args: Any) -> None:
        if args[-1] == self.at:
            self.status = self.coordination.run.status()
            self.act()

    def act(self) -> None:
        """By default nothing."""


class Fails(Watching):
    """Raises."""

    def act(self) -> None:
        raise ArithmeticError("a spoiled batch")


def fit(folder: Path, *callbacks: Callback, **options: Any) -> Trainer:
    """Fit on one device, validating once."""
    trainer = make_trainer(
        1, callbacks=[*callbacks], default_root_dir=folder, strategy="auto", **options
    )
    trainer.fit(Recorder(), make_loader(40), DataLoader(Numbered(8), batch_size=4))
    return trainer


def status_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "elche" / "status.json").read_text())
    return found


def logged(folder: Path) -> list[str]:
    """Return the kinds of what happened."""
    lines = (folder / "elche" / "events" / "rank0.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return [record["k"] for record in records if record["ph"] == "i"]


def test_run_tells_how_it_is_and_how_it_ended(tmp_path: Path) -> None:
    """While it trains and afterwards, in its folder; nobody else needs to be asked."""
    coordination = Coordination()
    watching = Watching(coordination)
    fit(tmp_path, coordination, watching)
    seen, last = watching.status, status_of(tmp_path)
    assert (seen["state"], seen["ready"], seen["healthy"], seen["batches"]) == (
        *("RUNNING", True, True),
        6,
    )
    assert (last["state"], last["ready"], last["healthy"], last["epoch"]) == (
        *("STOPPED", False, True),
        1,
    )
    assert (last["pid"], last["host"]) == (os.getpid(), socket.gethostname())
    assert not (tmp_path / "elche" / "run.lock").exists()


def test_what_happens_is_logged_and_told(tmp_path: Path) -> None:
    """To subscribers by kind, in order; the log has the same."""
    told: list[str] = []
    ends: list[dict[str, object]] = []
    coordination = Coordination(subscribers=[("*", lambda kind, _: told.append(kind))])
    coordination.subscribe("EVALUATION_COMPLETED", lambda _, data: ends.append(data))
    fit(tmp_path, coordination)
    assert [kind for kind in told if kind in ("validation_end", "epoch_end", "stopped")] == [
        *("validation_end", "epoch_end", "stopped")
    ]
    assert [end["epoch"] for end in ends] == [0]
    assert {"validation_end", "epoch_end", "stopped"} <= set(logged(tmp_path))


def test_subscriber_that_raises_does_not_harm_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The status counts it."""

    def fails(*event: object) -> None:
        raise KeyError(*event)

    fit(tmp_path, Coordination(subscribers=[("*", fails)]))
    status = status_of(tmp_path)
    assert status["state"] == "STOPPED"
    assert status["events"]["failed"] >= 3
    assert "Told once" in caplog.text


def test_run_that_fails_says_so(tmp_path: Path) -> None:
    """Its folder is free, and nothing of it keeps on working."""
    coordination = Coordination()
    with pytest.raises(ArithmeticError, match="a spoiled batch"):
        fit(tmp_path, coordination, Fails(coordination))
    status = status_of(tmp_path)
    assert (status["state"], status["error"], status["healthy"]) == (
        *("ERROR", "ArithmeticError: a spoiled batch"),
        False,
    )
    assert not (tmp_path / "elche" / "run.lock").exists()
    with pytest.raises(RuntimeError, match="`run` exists only during"):
        coordination.run  # noqa: B018


def test_no_hook_of_a_part_is_left_out(tmp_path: Path) -> None:
    """Each that a part has is one that `Coordination` hands on."""
    known = {*HOOKS, "on_exception"}
    found: set[str] = set()

    class Looks(Watching):
        def act(self) -> None:
            for part in self.coordination.run.parts:
                found.update(name for name in dir(part.part) if name.startswith("on_"))

    governor = GovernorConfig(enabled=True, signal="cpu")
    coordination = Coordination(CoordinationConfig(governor=governor))
    fit(tmp_path, coordination, Looks(coordination))
    assert "on_train_batch_end" in found
    assert found <= known
    assert all(name in vars(Coordination) for name in HOOKS)


def test_state_follows_what_was_asked_for(tmp_path: Path) -> None:
    """A pause, its end, and a stop, which ends the run with a checkpoint."""
    states: list[str] = []

    class Asks(Watching):
        def act(self) -> None:
            run = self.coordination.run
            for is_paused in (True, False):
                run.control.is_paused = is_paused
                states.append(str(run.status()["state"]))
            run.control.request_stop(StopCause.API, "enough")
            states.append(str(run.status()["state"]))

    resumed: list[str] = []
    coordination = Coordination(subscribers=[("resumed", lambda kind, _: resumed.append(kind))])
    with pytest.raises(SystemExit) as ended:
        fit(tmp_path, coordination, Asks(coordination))
    states.append(status_of(tmp_path)["state"])
    assert states == ["PAUSED", "RUNNING", "DRAINING", "STOPPED"]
    assert resumed == ["resumed"]
    assert ended.value.code == 143
    assert coordination.resume_path(tmp_path) is not None


def test_run_in_a_folder_of_another_one_is_refused(tmp_path: Path) -> None:
    """Before it has written anything there."""
    lock = RunLock(tmp_path / "elche")
    lock.take()
    with pytest.raises(RuntimeError, match=rf"Another run writes to .* process {os.getpid()} on"):
        fit(tmp_path, Coordination())
    assert not (tmp_path / "elche" / "status.json").exists()
    lock.release()


def test_several_fits_follow_each_other(tmp_path: Path) -> None:
    """With the same callback, also after one that has failed."""
    coordination = Coordination()
    with pytest.raises(ArithmeticError):
        fit(tmp_path, coordination, Fails(coordination))
    fit(tmp_path, coordination)
    assert status_of(tmp_path)["state"] == "STOPPED"


def test_nothing_is_done_where_nothing_is_trained(tmp_path: Path) -> None:
    """Validation alone leaves no traces."""
    trainer = make_trainer(
        1, callbacks=[Coordination()], default_root_dir=tmp_path, strategy="auto"
    )
    trainer.validate(Recorder(), DataLoader(Numbered(8), batch_size=4), verbose=False)
    assert list(tmp_path.iterdir()) == []


def test_options_come_from_a_file_as_well(tmp_path: Path) -> None:
    """The environment fills in what that leaves out."""
    path = tmp_path / "c.yaml"
    path.write_text("version: 1\nstop: {grace_s: 12}\n")
    assert Coordination(path).config.stop.grace_s == 12
    assert Coordination(CoordinationConfig(stop=StopConfig(grace_s=7.0))).config.stop.grace_s == 7.0


def test_environment_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the callback is made."""
    monkeypatch.setenv("ELCHE_GRACE_S", "33")
    coordination = Coordination()
    monkeypatch.setenv("ELCHE_GRACE_S", "44")
    assert coordination.config.stop.grace_s == 33.0


def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When training begins, that it goes on, and that it ends."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(5.0)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "60000000")
        fit(tmp_path, Coordination())
        told = [manager.recv(100)]
        while told[-1] != b"STOPPING=1":
            told.append(manager.recv(100))
        # The last version of the status, which tells of a run that is well.
        assert (told[0], manager.recv(100)) == (b"READY=1", b"WATCHDOG=1")


def test_port_answers_while_the_run_trains(tmp_path: Path) -> None:
    """With what the status file holds."""
    from urllib.request import urlopen

    class Asks(Watching):
        def act(self) -> None:
            port = self.status["components"]["export"]["status"]["port"]
            with urlopen(f"http://127.0.0.1:{port}/state", timeout=10.0) as answer:
                self.answer: Mapping[str, Any] = json.load(answer)

    coordination = Coordination(CoordinationConfig(export=ExportConfig(port=0)))
    asks = Asks(coordination)
    fit(tmp_path, coordination, asks)
    assert (asks.answer["state"], asks.answer["run"]) == ("RUNNING", str(tmp_path / "elche"))


class Net(LightningModule):
    """Has a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("as_file", [True, False])
def test_command_line_takes_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_file: bool
) -> None:
    """As a file of its own, or within the configuration of the run."""
    (tmp_path / "c.yaml").write_text("version: 1\nstop: {grace_s: 12.5}\n")
    config = str(tmp_path / "c.yaml") if as_file else {"stop": {"grace_s": 12.5}}
    callback = {
        "class_path": "lightning_elche.Coordination",
        "init_args": {"config": config},
    }
    options = {"trainer": {"callbacks": [callback], "accelerator": "cpu", "logger": False}}
    monkeypatch.setattr("sys.argv", ["train.py"])
    cli = LightningCLI(
        Net, run=False, save_config_callback=None, seed_everything_default=1, args=options
    )
    callbacks: list[Any] = cli.trainer.callbacks  # type: ignore[attr-defined]
    found = next(one for one in callbacks if isinstance(one, Coordination))
    assert found.config.stop.grace_s == 12.5


def shared(folder: Path, **limits: Any) -> CoordinationConfig:
    """Return options of a run that shares a registry with others."""
    return CoordinationConfig(
        registry=RegistryConfig(folder=str(folder)), limits=LimitsConfig(cooldown_s=0.0, **limits)
    )


def test_run_that_may_not_start_does_not(tmp_path: Path) -> None:
    """It holds no lock and is in no list afterwards; once there is room it starts."""
    config = shared(tmp_path / "shared", admission="enforce")
    registry = open_registry(config)
    assert isinstance(registry, Registry)
    lease = registry.admit(Request(kind="train", host=socket.gethostname())).lease
    assert lease is not None
    with pytest.raises(AdmissionDenied, match="1 of kind train") as denied:
        fit(tmp_path, Coordination(config))
    assert denied.value.decision.code == "host_limit"
    assert not (tmp_path / "elche" / "run.lock").exists()
    registry.release(lease.id, succeeded=True)
    coordination = Coordination(config, registry=registry)
    watching = Watching(coordination)
    fit(tmp_path, coordination, watching)
    assert watching.status["components"]["admission"]["status"]["is_held"]
    assert registry.leases() == ()


def test_run_is_listed_only_if_something_is_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise nothing leaves its folder; in either case it is listed no more when it is over."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    found: list[list[str]] = []

    class Lists(Watching):
        def act(self) -> None:
            places = (tmp_path / "state" / "elche", tmp_path / "shared")
            found.append([run.run_folder for place in places for run in list_runs(place)])

    for config in (None, shared(tmp_path / "shared")):
        coordination = Coordination(config)
        fit(tmp_path, coordination, Lists(coordination))
    assert found == [[], [str(tmp_path / "elche")]]
    assert list_runs(tmp_path / "shared") == ()
    assert not (tmp_path / "state").exists()
