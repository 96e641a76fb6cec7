"""Stops at other moments than within an epoch, and what users and the watchdog do at the end."""

from __future__ import annotations

import os
import signal
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from lightning_elche.callbacks import run_stopper, timeline_log
from lightning_elche.callbacks.coordination import Coordination
from lightning_elche.callbacks.run_events import emit
from lightning_elche.callbacks.run_stopper import RunStopper
from lightning_elche.coordination.config import CoordinationConfig
from lightning_elche.coordination.stopping.stop import StopConfig
from lightning_elche.coordination.stopping.watcher import Watchdog
from lightning_elche.timeline.events import EventLog
from tests.callbacks.stopped import train
from tests.ranks import fit

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step`")


class Validates(Callback):
    """Is told to stop in the first batch of a validation, and counts all of them."""

    def __init__(self) -> None:
        self.batches = 0

    def on_validation_batch_end(self, *_: Any) -> None:
        self.batches += 1
        if self.batches == 1:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("strategy", ["auto", "elche"])
def test_validation_that_ends_in_time_is_waited_for(strategy: str, tmp_path: Path) -> None:
    """The run stops at the end of the step after it, with one checkpoint."""
    told = Validates()
    options = {"size": 80, "val_size": 16, "val_check_interval": 5}
    ended = train(1, tmp_path, told, strategy=strategy, **options)
    assert (ended["code"], told.batches) == (143, 4)
    assert [path.name for path in tmp_path.iterdir()] == ["stop-6.ckpt"]


@pytest.mark.parametrize("strategy", ["auto", "elche"])
def test_sanity_check_is_left_at_once(strategy: str, tmp_path: Path) -> None:
    """Nothing is trained, so that there is nothing to save."""
    told = Validates()
    options = {"size": 80, "val_size": 16, "num_sanity_val_steps": 3}
    ended = train(1, tmp_path, told, strategy=strategy, **options)
    assert (ended["code"], ended["ids"], told.batches) == (143, {}, 1)
    assert list(tmp_path.iterdir()) == []


class Saves(Callback):
    """Saves after the third batch, and is told to stop while it does."""

    def __init__(self, path: Path) -> None:
        self.path, self.is_told = path, False

    def on_train_batch_end(self, trainer: Any, _: Any, __: Any, ___: Any, batch_idx: int) -> None:
        if batch_idx == 2:
            trainer.save_checkpoint(self.path)

    def on_save_checkpoint(self, *_: Any) -> None:
        if not self.is_told:
            self.is_told = True
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("strategy", ["auto", "elche"])
def test_save_under_way_is_finished_before_the_run_stops(strategy: str, tmp_path: Path) -> None:
    """Both checkpoints are whole."""
    saves = Saves(tmp_path / "own.ckpt")
    ended = train(1, tmp_path, saves, strategy=strategy, size=80)
    assert ended["code"] == 143
    steps = {p.name: torch.load(p, weights_only=True)["global_step"] for p in tmp_path.iterdir()}
    assert steps in ({"own.ckpt": 3, "stop-3.ckpt": 3}, {"own.ckpt": 3, "stop-4.ckpt": 4})


def test_strategy_whose_ranks_cannot_agree_is_told_of(tmp_path: Path) -> None:
    """As one that has ranks and no process group."""
    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(), world_size=2)
    with pytest.warns(UserWarning, match="SimpleNamespace has no process group by which ranks"):
        RunStopper(folder=lambda: tmp_path).on_fit_start(trainer, None)  # type: ignore[arg-type]  # not looked at


class AddsStep(Callback):
    """Adds a step to the end of a run, then stops it."""

    def __init__(self, coordination: Coordination) -> None:
        self.coordination, self.taken = coordination, list[str]()

    def on_train_batch_end(self, *_: Any) -> None:
        plan = self.coordination.run.plan
        plan.add("goodbye", lambda: self.taken.append("goodbye"), priority=50, timeout_s=5.0)
        os.kill(os.getpid(), signal.SIGTERM)


def test_step_of_a_user_is_taken_when_the_run_is_stopped(tmp_path: Path) -> None:
    """After the checkpoint, as its priority says; the event of the shutdown tells of it."""
    told: list[Any] = []
    coordination = Coordination(subscribers=[("shutdown", lambda _, data: told.append(data))])
    adds = AddsStep(coordination)
    with pytest.raises(SystemExit, match="143"):
        fit(1, callbacks=[adds, coordination], default_root_dir=tmp_path, strategy="auto")
    assert adds.taken == ["goodbye"]
    assert list(told[0]["steps"].items()) == [("checkpoint", "done"), ("goodbye", "done")]


class Hangs(Callback):
    """Does not end a step although the run is to stop, until its process would have been ended."""

    def __init__(self) -> None:
        self.is_ended = threading.Event()

    def on_train_batch_end(self, *_: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        emit("alert", message="the last words")
        assert self.is_ended.wait(20.0)


def test_events_are_written_before_a_process_that_hangs_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those that the log would have written only later."""
    hangs, written = Hangs(), list[str]()

    def leave(code: int) -> None:
        written.append(f"{code}: {(tmp_path / 'elche/events/rank0.jsonl').read_text()}")
        hangs.is_ended.set()

    monkeypatch.setattr(run_stopper, "Watchdog", partial(Watchdog, leave=leave))
    monkeypatch.setattr(timeline_log, "EventLog", partial(EventLog, period_s=600.0))
    callbacks = [Coordination(CoordinationConfig(stop=StopConfig(grace_s=0.4))), hangs]
    with pytest.raises(SystemExit):
        fit(1, callbacks=callbacks, default_root_dir=tmp_path, strategy="auto")
    assert written[0].startswith("143: ")
    assert "the last words" in written[0]
