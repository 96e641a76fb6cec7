"""A run that ends before its time, on one device; on several see `test_run_stopper_ranks`."""

from __future__ import annotations

import os
import signal
import time
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_elche import PartitionCheckpoint
from lightning_elche.callbacks.stop_files import newest_stop
from lightning_elche.control.requests import StopCause
from lightning_elche.coordination.stopping.commands import write_command
from lightning_elche.coordination.stopping.stop import StopConfig
from tests.callbacks.stopped import Acts, Stops, train
from tests.ranks import fit

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step`")

ONE = {"strategy": "auto"}


def kill(signum: int) -> Any:
    return lambda _: os.kill(os.getpid(), signum)


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 143)]
)
@pytest.mark.parametrize("strategy", ["auto", "elche"])
def test_signal_ends_the_run_with_a_checkpoint(
    signum: int, code: int, strategy: str, tmp_path: Path
) -> None:
    """The process ends with the code of the signal after the batch, and that batch is saved."""
    ended = train(1, tmp_path, Acts(0, 5, kill(signum)), strategy=strategy)
    assert ended["code"] == code
    assert [path.name for path in tmp_path.iterdir()] == ["stop-6.ckpt"]


def test_handlers_come_back_after_a_stop(tmp_path: Path) -> None:
    """What the user has installed is called during the run, and alone after it."""
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda signum, _: heard.append(signum))
    try:
        train(1, tmp_path, Acts(0, 1, kill(signal.SIGTERM)), **ONE)
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard == [signal.SIGTERM] * 2
    finally:
        signal.signal(signal.SIGTERM, before)


def test_all_callbacks_have_heard_of_the_last_batch(tmp_path: Path) -> None:
    """Also those that come after: the checkpoint counts as many batches as they do."""
    counts, saver = CountsBatches(), ModelCheckpoint(tmp_path / "other", every_n_train_steps=1)
    train(
        1,
        tmp_path,
        Acts(0, 5, kill(signal.SIGTERM)),
        saver,
        last=[counts],
        enable_checkpointing=True,
        **ONE,
    )
    saved = torch.load(tmp_path / "stop-6.ckpt", weights_only=True)
    assert (counts.batches, saver.best_model_path[-11:]) == (6, "step=6.ckpt")
    assert saved["callbacks"]["CountsBatches"] == {"batches": 6}


class CountsBatches(Callback):
    def __init__(self) -> None:
        self.batches = 0

    def on_train_batch_end(self, *_: Any) -> None:
        self.batches += 1

    def state_dict(self) -> dict[str, int]:
        return {"batches": self.batches}


def test_partitioned_run_resumes_with_the_bits_of_one_that_was_not_stopped(tmp_path: Path) -> None:
    """The last checkpoint is one of `PartitionCheckpoint`, which goes on in mid-epoch."""
    options = {"strategy": "elche", "size": 80, "enable_checkpointing": True}
    whole = train(1, tmp_path / "a", PartitionCheckpoint(tmp_path / "whole"), **options)
    saver = PartitionCheckpoint(tmp_path / "saved")
    train(1, tmp_path / "a", Acts(0, 7, kill(signal.SIGTERM)), saver, **options)
    path = newest_stop(tmp_path)
    assert [one.name for one in (tmp_path / "saved").iterdir()] == ["step-00000008-stop"]
    saver = PartitionCheckpoint(tmp_path / "saved")
    second = train(1, tmp_path / "a", saver, ckpt_path=path, **options)
    assert second["digest"] == whole["digest"]


def test_halt_file_ends_the_run_and_is_removed(tmp_path: Path) -> None:
    """A HALT that is written meanwhile is served within a second or so, and says so."""

    def halt(_: Any) -> None:
        write_command(tmp_path, "HALT", at=0.0, by="me", reason="enough")

    ended = train(1, tmp_path, Acts(0, 1, halt), **ONE, size=40000)
    assert ended["code"] == 143
    assert [path.suffix for path in tmp_path.iterdir()] == [".ckpt"]


def test_halt_file_before_the_start_ends_the_run_untrained(tmp_path: Path) -> None:
    """Nothing is trained, and nothing saved."""
    write_command(tmp_path, "HALT", at=0.0, by="me")
    asked = AsksAtSetup(lambda: None)
    ended = train(1, tmp_path, asked, **ONE)
    assert (ended["code"], ended["ids"]) == (143, {})
    assert list(tmp_path.iterdir()) == []


class AsksAtSetup(Callback):
    """Waits in `on_fit_start` until the files were looked at."""

    def __init__(self, act: Any) -> None:
        self.act = act

    def on_fit_start(self, trainer: Any, module: Any) -> None:
        stops = next(one for one in trainer.callbacks if isinstance(one, Stops))
        deadline = time.monotonic() + 10.0
        while not stops.stopper.status()["reason"]:
            assert time.monotonic() < deadline


def test_checkpoint_file_is_served_while_training_goes_on(tmp_path: Path) -> None:
    """A checkpoint is saved, the file is gone, and the run ends as it would have."""

    def ask(_: Any) -> None:
        write_command(tmp_path, "CHECKPOINT", at=0.0, by="me")

    served = EndsWhen(lambda: list(tmp_path.glob("requested-*.ckpt")))
    ended = train(1, tmp_path, Acts(0, 1, ask), served, **ONE, size=40000)
    assert (ended["code"], (tmp_path / "CHECKPOINT").exists()) == (0, False)


class EndsWhen(Callback):
    """Ends the training in the usual way once a condition holds."""

    def __init__(self, condition: Any) -> None:
        self.condition = condition

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        trainer.should_stop = trainer.should_stop or bool(self.condition())


def test_validation_that_takes_too_long_is_left(tmp_path: Path) -> None:
    """What was trained before it is saved by this rank alone, within the grace."""
    slow = SlowValidation()
    config = StopConfig(grace_s=4.0)
    ended = train(
        1, tmp_path, slow, config=config, **ONE, size=40, val_size=4000, val_check_interval=5
    )
    saved = torch.load(tmp_path / "solo-rank0.ckpt", weights_only=True)
    assert (ended["code"], saved["global_step"]) == (143, 5)
    assert saved["elche_solo"] == {"rank": 0, "world_size": 1}


class SlowValidation(Callback):
    """Takes long, and is told to stop after the first batch."""

    def on_validation_batch_end(self, trainer: Any, *_: Any) -> None:
        began = time.monotonic()
        while time.monotonic() - began < 0.1:
            pass
        os.kill(os.getpid(), signal.SIGTERM)


def test_deadline_stops_the_run(tmp_path: Path) -> None:
    """The moment that is told beforehand is heeded without a signal."""
    due = time.monotonic() + 0.3
    stops = Stops(tmp_path, StopConfig(), deadline=lambda: (due, "the end of the job"))
    with pytest.raises(SystemExit, match="143"):
        fit(1, size=40000, callbacks=[stops], strategy="auto")
    assert len(list(tmp_path.glob("stop-*.ckpt"))) == 1


def test_requeued_job_saves_for_lightning_and_tells_slurm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint is where Lightning finds it by itself, and `scontrol requeue` was called."""
    tool = tmp_path / "bin" / "scontrol"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/called\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    ended = train(
        1,
        tmp_path / "run",
        Acts(0, 3, kill(signal.SIGUSR1)),
        config=StopConfig(requeue="always"),
        default_root_dir=tmp_path,
        **ONE,
    )
    assert (tmp_path / "called").read_text() == "requeue 17\n"
    assert (ended["code"], (tmp_path / "hpc_ckpt_1.ckpt").exists()) == (143, True)


@pytest.mark.skipif(
    "save_on_exception" not in signature(ModelCheckpoint).parameters,
    reason="came with Lightning 2.6",
)
def test_second_saver_is_warned_of(tmp_path: Path) -> None:
    """A checkpoint at errors would be a second one of the same."""
    saver = ModelCheckpoint(tmp_path, save_on_exception=True)
    with pytest.warns(UserWarning, match="ModelCheckpoint saves when an error ends"):
        train(1, tmp_path, saver, size=8, enable_checkpointing=True, **ONE)


def test_damaged_checkpoint_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The newest one that is whole counts; one flipped bit is found."""
    for name, age in (("stop-1.ckpt", 2), ("stop-2.ckpt", 1)):
        torch.save({"x": torch.zeros(100)}, tmp_path / name)
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    damaged = tmp_path / "stop-2.ckpt"
    assert newest_stop(tmp_path) == str(damaged)
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    assert newest_stop(tmp_path) == str(tmp_path / "stop-1.ckpt")
    assert "stop-2.ckpt is damaged" in caplog.text


def test_no_stop_is_found_in_an_empty_folder(tmp_path: Path) -> None:
    """There is nothing to resume from."""
    assert newest_stop(tmp_path) is None


def test_api_stops_without_a_signal(tmp_path: Path) -> None:
    """Code that holds the strategy may end the run."""

    def stop(trainer: Any) -> None:
        trainer.strategy.control.request_stop(StopCause.API, "good enough")

    ended = train(1, tmp_path, Acts(0, 2, stop), strategy="elche")
    assert (ended["code"], len(list(tmp_path.glob("stop-3.ckpt")))) == (143, 1)
