"""The end of a run before its time: agreed, with one last checkpoint and the right exit code."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_elche import ElCheStrategy
from lightning_elche.testing import run_ranks
from tests.ranks import Fails, fit

pytestmark = pytest.mark.slow

WITHIN_S = 30.0
STOPPED = "last-stopped.ckpt"


class Signalled(Callback):
    """Sends a signal to its own process, on some ranks only, after a few steps."""

    def __init__(self, signum: int, ranks: list[int]) -> None:
        self.signum, self.ranks = signum, ranks

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        at = trainer.fit_loop.epoch_loop.batch_idx
        if trainer.global_rank in self.ranks and at == 5:
            os.kill(os.getpid(), self.signum)


def stop_by_signal(folder: str, signum: int, ranks: list[int], backend: Any) -> None:
    world_size = int(os.environ["WORLD_SIZE"])
    fit(
        world_size,
        size=4000,
        delays_ms=(2.0, 8.0),
        callbacks=[Signalled(signum, ranks), ModelCheckpoint(folder)],
        enable_checkpointing=True,
        strategy=ElCheStrategy(backend=backend, timeout_s=30.0),
    )


@pytest.mark.parametrize("backend", ["device", "cpu"])
@pytest.mark.parametrize(
    ("signum", "ranks", "code"),
    [
        (signal.SIGTERM, [1], 143),
        (signal.SIGTERM, [0, 1, 2], 143),
        (signal.SIGINT, [0, 1, 2], 130),
    ],
)
def test_signal_ends_all_ranks_with_a_checkpoint(
    signum: int, ranks: list[int], code: int, backend: str, tmp_path: Path
) -> None:
    """Each rank exits with the code of the signal; what all have trained is in the checkpoint."""
    arguments = {"folder": str(tmp_path), "signum": signum, "ranks": ranks, "backend": backend}
    results = run_ranks(stop_by_signal, world_size=3, timeout_s=WITHIN_S, check=False, **arguments)
    assert [result.returncode for result in results] == [code] * 3, results[0].output
    check_stopped(tmp_path)


def check_stopped(folder: Path) -> None:
    saved = torch.load(folder / STOPPED, weights_only=True)
    data = saved["loops"]["fit_loop"]["epoch_loop.state_dict"]["elche"]["data"]
    trained = sum(stop - start for start, stop in data["trained"])
    assert trained + sum(stop - start for start, stop in data["ahead"]) == saved["global_step"] > 0


def fail_on(folder: str, rank: int, backend: Any) -> None:
    fit(
        3,
        size=4000,
        model=Fails(rank),
        callbacks=[ModelCheckpoint(folder)],
        enable_checkpointing=True,
        strategy=ElCheStrategy(backend=backend, timeout_s=30.0),
    )


@pytest.mark.parametrize("backend", ["device", "cpu"])
@pytest.mark.parametrize("failing", [0, 2])
def test_failure_of_a_rank_loses_no_work_of_the_others(
    failing: int, backend: str, tmp_path: Path
) -> None:
    """What the others have trained is averaged and saved, without the one that failed."""
    results = run_ranks(
        fail_on,
        world_size=3,
        timeout_s=WITHIN_S,
        check=False,
        folder=str(tmp_path),
        rank=failing,
        backend=backend,
    )
    assert [result.returncode for result in results] == [1] * 3
    assert "ArithmeticError: a spoiled batch" in results[failing].output
    check_stopped(tmp_path)
    saved = torch.load(tmp_path / STOPPED, weights_only=True)
    assert all(value.isfinite().all() for value in saved["state_dict"].values())


SCRIPT = """
import os
import sys
from pathlib import Path

from lightning.pytorch.callbacks import Callback, ModelCheckpoint

import lightning_elche
from tests.ranks import Recorder, make_loader, make_trainer


class TellsPid(Callback):
    def on_train_batch_end(self, trainer, *_):
        path = Path(sys.argv[1], f"pid-{trainer.global_rank}")
        if not path.exists():
            path.with_suffix(".part").write_text(str(os.getpid()))
            path.with_suffix(".part").rename(path)


if __name__ == "__main__":
    trainer = make_trainer(
        2,
        strategy=sys.argv[2],
        callbacks=[TellsPid(), ModelCheckpoint(sys.argv[1])],
        enable_checkpointing=True,
    )
    trainer.fit(Recorder((2.0, 8.0)), make_loader(40000, num_workers=int(sys.argv[3])))
"""


def started(folder: Path, strategy: str, workers: int) -> subprocess.Popen[str]:
    """Start a script as a user would, and return once both ranks train."""
    script = folder / "train.py"
    script.write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, str(script), str(folder), strategy, str(workers)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60.0
    while not all((folder / f"pid-{rank}").exists() for rank in (0, 1)):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


def is_gone(pid: int) -> bool:
    """Whether the process has ended, even if nobody has asked for its exit code yet."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def check_gone(folder: Path) -> None:
    pids = [int((folder / f"pid-{rank}").read_text()) for rank in (0, 1)]
    deadline = time.monotonic() + 10.0  # a process closes its output before it is gone
    while not all(is_gone(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(("to", "workers"), [("main", 0), ("child", 0), ("group", 2)])
def test_launched_ranks_end_with_the_code_of_the_signal(
    to: str, workers: int, tmp_path: Path
) -> None:
    """Whichever process is told: the checkpoint is there, and no process is left."""
    process = started(tmp_path, "elche", workers)
    try:
        if to == "group":
            os.killpg(process.pid, signal.SIGTERM)
        else:
            pid = process.pid if to == "main" else int((tmp_path / "pid-1").read_text())
            os.kill(pid, signal.SIGTERM)
        output, _ = process.communicate(timeout=2 * WITHIN_S)  # the interpreters end, too
        check_gone(tmp_path)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert process.returncode == 143, output
    assert f"What all ranks have trained is in {tmp_path / STOPPED}" in output
    check_stopped(tmp_path)
