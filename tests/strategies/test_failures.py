"""Nothing hangs: failures on one rank end all ranks, each with a message that helps."""

from __future__ import annotations

import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_elche import ElCheStrategy
from lightning_elche.testing import RankResult, run_ranks
from tests.examples.script import run_script
from tests.ranks import Fails, Numbered, Recorder, fit, make_loader, make_trainer

pytestmark = pytest.mark.slow

WITHIN_S = 30.0


def fail_on(rank: int) -> None:
    fit(3, size=4000, model=Fails(rank))


@pytest.mark.parametrize("failing", [0, 2])
def test_failure_of_one_rank_ends_all_within_30_seconds(failing: int) -> None:
    """Every rank exits with an error; the failing one shows its traceback, the others name it."""
    began = time.monotonic()
    ranks = run_ranks(fail_on, world_size=3, timeout_s=WITHIN_S, check=False, rank=failing)
    assert time.monotonic() - began < WITHIN_S
    assert all(rank.returncode for rank in ranks)
    assert "ArithmeticError: a spoiled batch" in ranks[failing].output
    for rank, result in enumerate(ranks):
        if rank != failing:
            assert f"Rank {failing} failed with ArithmeticError: a spoiled batch" in result.output


class Dies(Recorder):
    """Kills its own process after a few steps."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        if self.global_rank == 1 and batch_idx == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().training_step(batch, batch_idx)


def die() -> None:
    fit(2, size=4000, model=Dies((2.0, 8.0)), strategy=ElCheStrategy(timeout_s=4.0))


def test_killed_rank_ends_the_others_with_a_typed_error() -> None:
    """A rank whose peer is gone raises PeerLost instead of waiting for ever."""
    ranks = run_ranks(die, world_size=2, timeout_s=WITHIN_S, check=False)
    assert ranks[0].returncode == 1
    assert "PeerLost: Ranks [1] did not agree to average" in ranks[0].output


class Shrinks(Recorder):
    """Loses a part of a parameter on one rank, which no step uses, and which cannot be averaged."""

    def __init__(self) -> None:
        super().__init__((2.0, 8.0))
        self.unused = torch.nn.Parameter(torch.zeros(4))

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.global_rank == 1 and batch_idx == 5:
            self.unused.data = torch.zeros(3)


def shrink(policy: str) -> None:
    strategy = ElCheStrategy(policy=policy, timeout_s=4 * WITHIN_S)
    fit(2, size=4000, model=Shrinks(), strategy=strategy)


@pytest.mark.parametrize("policy", ["cadence", "async"])
def test_failure_within_an_averaging_event_ends_all_ranks(policy: str) -> None:
    """What one rank still exchanged would not pair up with what the other one waits for."""
    ranks = run_ranks(shrink, world_size=2, timeout_s=WITHIN_S, check=False, policy=policy)
    assert [rank.returncode for rank in ranks] == [1, 1]
    assert "RuntimeError: " in ranks[1].output
    assert "Rank 1 failed with RuntimeError" in ranks[0].output


class AsksToStop(Callback):
    """Sets `should_stop` on one rank only."""

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_rank == 1:
            trainer.should_stop = True


def stop_early() -> int:
    trainer, _ = fit(2, size=4000, delays_ms=(1.0, 4.0), callbacks=[AsksToStop()], val_size=8)
    return trainer.global_step


def test_stop_on_one_rank_stops_all_together() -> None:
    """All ranks leave at the same event, long before the end of the epoch."""
    first, second = (rank.value for rank in run_ranks(stop_early, world_size=2))
    assert first == second < 200


def fill_the_disk(folder: str) -> None:
    if int(os.environ["RANK"]) == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))  # bytes in a file
    model = Recorder((1.0, 4.0))
    model.large = torch.nn.Linear(100, 100)
    saver = ModelCheckpoint(folder, every_n_train_steps=20)
    fit(2, model=model, callbacks=[saver], enable_checkpointing=True)


def test_checkpoint_that_cannot_be_written_ends_all_ranks(tmp_path: Path) -> None:
    """Only rank 0 writes; the others would wait for it."""
    ranks = run_ranks(
        fill_the_disk, world_size=2, timeout_s=WITHIN_S, check=False, folder=str(tmp_path)
    )
    assert [rank.returncode for rank in ranks] == [1, 1]
    assert "OSError: [Errno 27] File too large" in ranks[0].output
    assert "Rank 0 failed with an error when it saved a checkpoint" in ranks[1].output


THREADS = """
import atexit
import os
from pathlib import Path


@atexit.register  # before all others, so that it is called after them
def show_threads() -> None:
    names = [task.read_text().strip() for task in Path("/proc/self/task").glob("*/comm")]
    found = [name for name in names if "gloo" in name]
    # In one piece, since the ranks share the output.
    os.write(1, f"threads of gloo: {found}\\n".encode())


import lightning_elche
from tests.ranks import Recorder, make_loader, make_trainer

make_trainer(2).fit(Recorder(), make_loader(64))
"""


def test_no_thread_of_gloo_outlives_the_groups(tmp_path: Path) -> None:
    """One that lets go of a tensor while the interpreter is torn down aborts the process."""
    script = tmp_path / "train.py"
    script.write_text(THREADS)
    finished = run_script(str(script), folder=tmp_path)
    assert finished.code == 0, finished.stderr
    assert finished.stdout.count("threads of gloo: []\n") == 2


def different_models() -> None:
    model = Recorder()
    if int(os.environ["RANK"]) == 1:
        model.extra = torch.nn.Linear(2, 2)
    fit(2, model=model)


def different_order() -> None:
    seed_everything(int(os.environ["RANK"]), verbose=False)
    trainer = make_trainer(2, use_distributed_sampler=False)
    trainer.fit(Recorder(), make_loader(200))


def too_few_batches() -> None:
    fit(3, size=8)


def two_loaders() -> None:
    make_trainer(2).fit(Recorder(), {"a": make_loader(40), "b": make_loader(40)})


def errors_of(results: list[RankResult]) -> str:
    assert all(result.returncode for result in results)
    return "".join(result.output for result in results)


@pytest.mark.parametrize(
    ("function", "world_size", "message"),
    [
        (different_models, 2, "Ranks must hold the same model, but names, shapes or types"),
        (different_order, 2, "Ranks must see the same batches in epoch 0"),
        (too_few_batches, 3, "`dataloader` must have at least 3 batches (one per rank), got 2"),
        (two_loaders, 2, "`train_dataloaders` must be one DataLoader, got 2"),
    ],
)
def test_mismatch_is_refused_on_all_ranks(function: Any, world_size: int, message: str) -> None:
    """A set-up that cannot work ends every rank with a message that names the cause."""
    results = run_ranks(function, world_size=world_size, timeout_s=WITHIN_S, check=False)
    assert message in errors_of(results)


def test_numbered_samples_are_a_function_of_their_index() -> None:
    """The data set of these tests is the same on every rank."""
    assert torch.equal(Numbered(9)[4][0], Numbered(5)[4][0])
