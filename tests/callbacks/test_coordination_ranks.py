"""Tests of `Coordination` on several ranks."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback

from lightning_elche import CadenceConfig, ElCheStrategy
from lightning_elche.callbacks.cadence_monitor import CadenceMonitor
from lightning_elche.callbacks.coordination import Coordination
from lightning_elche.callbacks.run_events import emit
from lightning_elche.coordination.run_lock import RunLock
from lightning_elche.testing import run_ranks
from tests.ranks import fit

pytestmark = pytest.mark.slow

WITHIN_S = 60.0
CADENCE = CadenceConfig(anchor=4, max_anchor=4)


class Acts(Callback):
    """Does something after some batches."""

    def __init__(self, act: Any, at: int = 12) -> None:
        self.act, self.at = act, at

    def on_train_batch_end(self, *args: Any) -> None:
        if args[-1] == self.at:
            self.act()


def train(folder: str, *callbacks: Callback, **options: Any) -> tuple[Any, Any]:
    strategy = ElCheStrategy(timeout_s=30.0, cadence=CADENCE)
    options = {"delays_ms": (1.0, 3.0), "strategy": strategy, **options}
    return fit(2, callbacks=[*callbacks], default_root_dir=folder, **options)


def status_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "elche" / "status.json").read_text())
    return found


def kinds_of(folder: Path, rank: int) -> list[str]:
    """Return the kinds of what happened, as a rank has logged it."""
    log = folder / "elche" / "events" / f"rank{rank}.jsonl"
    records = [json.loads(line) for line in log.read_text().splitlines()]
    return [record["k"] for record in records if record["ph"] == "i"]


def train_alone(folder: str) -> dict[str, Any]:
    """Be refused in a folder of another run, then fit with nothing but `Coordination()`."""
    lock, rank, told = RunLock(Path(folder) / "elche"), int(os.environ["RANK"]), []
    if rank == 0:
        lock.take()
    with pytest.raises(RuntimeError, match="Another run writes to") as refused:
        train(folder, Coordination())
    lock.release()
    coordination = Coordination(subscribers=[("*", lambda kind, _: told.append(kind))])
    tells = Acts(lambda: emit("alert", what="one of all ranks is enough", rank=rank))
    train(folder, coordination, tells, val_size=8)
    return {"refused": str(refused.value), "told": told}


def test_coordination_alone_tells_how_a_run_was(tmp_path: Path) -> None:
    """A second writer is refused on all ranks, events are told, an alert once for all ranks."""
    ranks = [
        one.value
        for one in run_ranks(train_alone, world_size=2, timeout_s=WITHIN_S, folder=str(tmp_path))
    ]
    assert all("Another run writes to" in rank["refused"] for rank in ranks)
    status = status_of(tmp_path)
    assert (status["state"], status["healthy"], status["world_size"]) == ("STOPPED", True, 2)
    assert sorted(one.name for one in (tmp_path / "elche").iterdir() if one.is_file()) == [
        *("durations.jsonl", "status.json")
    ]
    for rank in (0, 1):
        told = kinds_of(tmp_path, rank)
        assert {"average", "epoch_end", "validation_end", "stopped"} <= set(told)
        assert [told.count(kind) for kind in ("epoch_end", "stopped")] == [1, 1]
    assert sorted(rank["told"].count("alert") for rank in ranks) == [0, 1]


def stop(folder: str) -> tuple[int, bool]:
    """Be stopped by a signal to rank 1."""
    coordination = Coordination()
    is_told = os.environ["RANK"] == "1"
    acts = Acts((lambda: os.kill(os.getpid(), signal.SIGTERM)) if is_told else (lambda: None))
    with pytest.raises(SystemExit) as ended:
        train(folder, coordination, CadenceMonitor(progress_bar=False), acts, size=4000)
    return int(ended.value.code or 0), coordination.resume_path(folder) is not None


def test_run_that_is_stopped_ends_as_it_should(tmp_path: Path) -> None:
    """One checkpoint, the exit code of the signal, and a status that says so."""
    ranks = run_ranks(stop, world_size=2, timeout_s=WITHIN_S, folder=str(tmp_path))
    assert [rank.value for rank in ranks] == [(143, True), (143, True)]
    status = status_of(tmp_path)
    assert (status["state"], status["error"]) == ("STOPPED", "")
    assert status["components"]["stop"]["status"]["stop"] == "SIGTERM"
    told = kinds_of(tmp_path, 0)
    once = ("stop_agreed", "checkpoint_saved", "stopped")
    assert [told.count(kind) for kind in once] == [1, 1, 1]
    averages = [told.count("average"), status["components"]["events"]["status"]["averages"]]
    assert averages[0] == averages[1]
