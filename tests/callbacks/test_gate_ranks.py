"""A training contract on several ranks: one stops all, before anything of it is averaged."""

from __future__ import annotations

import contextlib
import json
import math
import os
import resource
import signal
from pathlib import Path
from typing import Any

import pytest

from lightning_elche import ElCheStrategy
from lightning_elche.exceptions import GateViolation
from lightning_elche.testing import RankResult, run_ranks
from tests.callbacks.gated import Scripted, fit_gated, lines_of, run_of
from tests.examples.script import run_script

pytestmark = pytest.mark.slow

WITHIN_S = 40.0
OPTIONS: dict[str, dict[str, Any]] = {
    "cadence": {},
    "async": {"policy": "async"},
    "cpu": {"backend": "cpu"},
    "sync": {"policy": "sync"},
}


def train(folder: str, options: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    """Fit, and return how this rank ended; `options` are those of ElCheStrategy, or DDP."""
    world_size = int(os.environ["WORLD_SIZE"])
    strategy = "ddp" if options is None else ElCheStrategy(timeout_s=30.0, **options)
    model = Scripted(delays_ms=(1.0, 3.0), **more.pop("script", {}))
    try:
        fit_gated(folder, model=model, devices=world_size, strategy=strategy, **more)
    except GateViolation as err:
        ended: Any = (err.exit_code, err.rank, err.violation.message)
    else:
        ended = None
    is_finite = all(bool(value.isfinite().all()) for value in model.parameters())
    return {"ended": ended, "is_finite": is_finite}


def run(folder: Path, options: dict[str, Any] | None, **more: Any) -> list[RankResult]:
    return run_ranks(
        train, world_size=2, timeout_s=WITHIN_S, folder=str(folder), options=options, **more
    )


@pytest.mark.parametrize("sync", ["immediate", "deferred"])
@pytest.mark.parametrize("name", ["cadence", "async", "cpu"])
def test_loss_that_is_not_finite_on_one_rank_spoils_no_other(
    name: str, sync: str, tmp_path: Path
) -> None:
    """All raise the same; the other rank's parameters were never averaged with the spoiled ones."""
    first, second = run(
        tmp_path,
        OPTIONS[name],
        size=400,
        script={"nan_at": 7, "nan_rank": 1},
        gate={"sync": sync},
    )
    assert first.value["ended"] == second.value["ended"]
    assert first.value["ended"] == (27, 1, "NUMERICAL_INSTABILITY at step 7: train_loss = nan")
    assert (first.value["is_finite"], second.value["is_finite"]) == (True, False)
    assert len(lines_of(tmp_path / "train.rank1.jsonl")) == 7


@pytest.mark.parametrize("options", [None, OPTIONS["sync"]], ids=["ddp", "sync"])
def test_all_ranks_of_ddp_raise_the_same(options: dict[str, Any] | None, tmp_path: Path) -> None:
    """There a spoiled gradient reaches all ranks in the step itself."""
    first, second = run(tmp_path, options, script={"nan_at": 3, "nan_rank": 1})
    assert first.value["ended"] == second.value["ended"]
    assert first.value["ended"][:2] == (27, 0)


@pytest.mark.parametrize("options", [None, {}], ids=["ddp", "elche"])
def test_divergence_stops_all_ranks(options: dict[str, Any] | None, tmp_path: Path) -> None:
    """And the epoch has no checkpoint."""
    results = run(tmp_path, options, script={"val_losses": (3.5, 7.1)}, max_epochs=3)
    message = "DIVERGENCE at epoch 1: val_loss 7.1 > 2.0 x 3.5 (ratio 2.029)"
    assert [result.value["ended"] for result in results] == 2 * [(25, 0, message)]
    assert [file.name for file in tmp_path.glob("ckpt/*.ckpt")] == ["epoch-000.ckpt"]


@pytest.mark.parametrize("options", [None, {}], ids=["ddp", "elche"])
def test_metadata_are_of_all_ranks(options: dict[str, Any] | None, tmp_path: Path) -> None:
    """Loss, largest norm and tokens."""
    run(tmp_path, options, size=80, max_epochs=2)
    logs = [lines_of(tmp_path / name) for name in ("train.jsonl", "train.rank1.jsonl")]
    lines = [line for log in logs for line in log if line["epoch"] == 1]
    losses = [line["train_loss"] for line in lines]
    epoch = json.loads((tmp_path / "ckpt/epoch-001.metadata.json").read_text())
    assert epoch["train_loss"] == pytest.approx(math.fsum(losses) / len(losses), rel=1e-6)
    assert epoch["grad_norm_max"] == max(line["grad_norm"] for line in lines)
    assert epoch["tokens_seen"] == 160


def test_only_rank_zero_may_log(tmp_path: Path) -> None:
    """Where there is no shared file system."""
    run(tmp_path, {}, gate={"log_ranks": "zero"})
    assert sorted(file.name for file in tmp_path.glob("*.jsonl")) == ["events.jsonl", "train.jsonl"]
    assert run_of(tmp_path)["logged_ranks"] == [0]


class Unsynced(Scripted):
    """Each rank has a validation loss of its own."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", 2.0 + self.global_rank)


def train_unsynced(folder: str) -> None:
    told = pytest.warns(UserWarning, match="differs from rank to rank")
    with told if os.environ["RANK"] == "0" else contextlib.nullcontext():
        fit_gated(folder, model=Unsynced(), devices=2, strategy=ElCheStrategy(timeout_s=30.0))


@pytest.mark.filterwarnings("ignore:It is recommended to use")
def test_mean_counts_where_validation_losses_differ(tmp_path: Path) -> None:
    """All ranks judge the same number, and are told."""
    run_ranks(train_unsynced, world_size=2, timeout_s=WITHIN_S, folder=str(tmp_path))
    assert run_of(tmp_path)["last_val_loss"] == {"epoch": 0, "val_loss": 2.5}
    events = [line["event"] for line in lines_of(tmp_path / "events.jsonl")]
    assert "VAL_NOT_SYNCED" in events


def train_on_full_disk(folder: str, options: dict[str, Any] | None) -> dict[str, Any]:
    """No file of rank 0 may get larger than a few steps; a checkpoint does."""
    if os.environ["RANK"] == "0":
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
    return train(folder, options, max_epochs=2, gate={"log_ranks": "zero"})


@pytest.mark.filterwarnings("ignore:An artifact of epoch")
@pytest.mark.parametrize("options", [None, {}, {"backend": "cpu"}], ids=["ddp", "elche", "cpu"])
def test_full_disk_hangs_no_rank(options: dict[str, Any] | None, tmp_path: Path) -> None:
    """Training goes on, and the run fails at its end."""
    results = run_ranks(
        train_on_full_disk, world_size=2, timeout_s=60.0, folder=str(tmp_path), options=options
    )
    codes = [result.value["ended"][0] for result in results]
    assert codes == [22, 22]
    assert not list(tmp_path.glob("ckpt/epoch-*"))


@pytest.mark.parametrize("options", [None, {}], ids=["ddp", "elche"])
def test_resumed_ranks_go_on_with_their_own_logs(
    options: dict[str, Any] | None, tmp_path: Path
) -> None:
    """Step numbers of each follow, though they make unequal numbers of steps."""
    run(tmp_path, options, size=80, max_epochs=1)
    run(
        tmp_path,
        options,
        size=80,
        max_epochs=2,
        ckpt_path=str(tmp_path / "ckpt/epoch-000.ckpt"),
    )
    for name in ("train.jsonl", "train.rank1.jsonl"):
        steps = [line["step"] for line in lines_of(tmp_path / name)]
        assert steps == list(range(len(steps)))
    assert (run_of(tmp_path)["attempt"], run_of(tmp_path)["tokens_seen"]) == (1, 160)


SCRIPT = """
import sys

from lightning_elche import ElCheStrategy, exit_on_violation
from tests.callbacks.gated import Scripted, fit_gated

if __name__ == "__main__":
    model = Scripted(nan_at=5, nan_rank=1, delays_ms=(1.0, 4.0))
    with exit_on_violation():
        fit_gated("run", model=model, size=400, devices=2, strategy=sys.argv[1])
"""


@pytest.mark.parametrize("strategy", ["elche", "elche_fork"])
def test_job_ends_with_the_code_of_the_gate(strategy: str, tmp_path: Path) -> None:
    """Whoever has started the ranks; here it is not the first one that breaks the contract."""
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    finished = run_script(str(script), strategy, folder=tmp_path, timeout_s=90.0)
    assert finished.code == 27, finished.stderr
    assert "NUMERICAL_INSTABILITY at step 5" in finished.stderr
    assert run_of(tmp_path / "run")["exit_code"] == 27
