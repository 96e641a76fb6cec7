"""A run that ends before its time, on several ranks of unequal speed."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from lightning_elche.callbacks.stop_files import newest_stop
from lightning_elche.coordination.stopping import watcher
from lightning_elche.coordination.stopping.commands import remove_command, write_command
from lightning_elche.coordination.stopping.stop import StopConfig
from lightning_elche.testing import run_ranks
from tests.callbacks.stopped import Acts, train

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:You defined a `validation_step`"),
    pytest.mark.filterwarnings("ignore:You.re resuming from a checkpoint that ended"),
]

WITHIN_S = 60.0


def terminate(_: Any) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def stop_one(folder: str) -> Any:
    return train(2, folder, Acts(1, 5, terminate), size=200)


def test_signal_to_one_rank_ends_all_and_is_resumed_exactly(tmp_path: Path) -> None:
    """All hold the same parameters, one checkpoint is there, and each sample is trained once."""
    stopped = run_ranks(stop_one, world_size=2, timeout_s=WITHIN_S, folder=str(tmp_path))
    assert [one.value["code"] for one in stopped] == [143, 143]
    assert len({one.value["digest"] for one in stopped}) == 1
    (path,) = tmp_path.iterdir()
    rest = train(1, tmp_path / "b", strategy="elche", size=200, ckpt_path=newest_stop(tmp_path))
    ids = [i for ended in (stopped[0].value, stopped[1].value, rest) for i in ended["ids"][0]]
    assert (path.name[:5], sorted(ids)) == ("stop-", list(range(200)))


class Commands(Callback):
    """Pauses, goes on, asks for a checkpoint, then halts; each once the one before was served."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.steps = 0
        self.steps_in_pause = -1

    def on_train_start(self, trainer: Any, module: Any) -> None:
        if trainer.global_rank == 0:
            threading.Thread(target=self._command, args=(trainer,), daemon=True).start()

    def on_train_batch_end(self, *_: Any) -> None:
        self.steps += 1

    def _command(self, trainer: Any) -> None:
        control = trainer.strategy.control
        write_command(self.folder, "PAUSE", at=0.0, by="me")
        until(lambda: control.is_paused)
        before, at = self.steps, time.monotonic()
        until(lambda: time.monotonic() > at + 0.5)
        self.steps_in_pause = self.steps - before
        remove_command(self.folder, "PAUSE")
        until(lambda: self.steps > before)
        write_command(self.folder, "CHECKPOINT", at=0.0, by="me")
        until(lambda: not (self.folder / "CHECKPOINT").exists())
        write_command(self.folder, "HALT", at=0.0, by="me", reason="enough")


def until(condition: Any) -> None:
    deadline = time.monotonic() + 30.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def obey(folder: str) -> Any:
    watcher.FILES_PERIOD_S = 0.1
    commands = Commands(Path(folder))
    found = train(2, folder, commands, size=40000)
    return {**found, "steps_in_pause": commands.steps_in_pause}


def test_files_pause_save_and_halt_all_ranks(tmp_path: Path) -> None:
    """Nobody trains in the pause; the files that were served are gone in the end."""
    results = run_ranks(obey, world_size=2, timeout_s=WITHIN_S, folder=str(tmp_path))
    assert [one.value["code"] for one in results] == [143, 143]
    assert results[0].value["steps_in_pause"] == 0
    kinds = sorted(path.name.split("-")[0] for path in tmp_path.iterdir())
    assert kinds == ["requested", "stop"]


class Misbehaves(Callback):
    """Rank 1 never ends a step, rank 2 is killed by force, and then rank 0 is told to stop."""

    def __init__(self, folder: Path) -> None:
        self.hangs = folder / "hangs"

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, i: int) -> None:
        if trainer.global_rank == 1 and i == 5:
            self.hangs.touch()
            threading.Event().wait(WITHIN_S)

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_rank == 2 and self.hangs.exists():
            until(lambda: trainer.strategy.control.stop)
            os.kill(os.getpid(), signal.SIGKILL)
        if trainer.global_rank == 0 and self.hangs.exists():
            terminate(trainer)


def stop_beside_others(folder: str, marks: str) -> Any:
    config = StopConfig(grace_s=4.0)
    return train(3, folder, Misbehaves(Path(marks)), size=40000, config=config)


def test_ranks_that_hang_or_die_in_a_stop_cost_their_work_only(tmp_path: Path) -> None:
    """Rank 0 saves alone before its time is up; one that hangs is ended, and says where it was."""
    results = run_ranks(
        stop_beside_others,
        world_size=3,
        timeout_s=WITHIN_S,
        check=False,
        folder=str(tmp_path / "run"),
        marks=str(tmp_path),
    )
    assert [one.returncode for one in results[1:]] == [143, -signal.SIGKILL]
    assert results[0].value["code"] == 143
    saved = torch.load(tmp_path / "run" / "solo-rank0.ckpt", weights_only=True)
    assert saved["elche_solo"] == {"rank": 0, "world_size": 3}
    assert "on_train_batch_start" in (tmp_path / "run" / "stacks-rank1.txt").read_text()


def stop_ddp(folder: str) -> Any:
    return train(2, folder, Acts(1, 5, terminate), strategy="ddp", size=40000)


def test_ranks_of_ddp_stop_after_the_same_step(tmp_path: Path) -> None:
    """Whichever has got the signal: one checkpoint, and nobody waits for the others."""
    results = run_ranks(stop_ddp, world_size=2, timeout_s=WITHIN_S, folder=str(tmp_path))
    assert [one.value["code"] for one in results] == [143, 143]
    assert len({one.value["digest"] for one in results}) == 1
    assert [path.name[:5] for path in tmp_path.iterdir()] == ["stop-"]
