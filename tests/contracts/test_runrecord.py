"""The run record as it is read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lightning_elche.contracts.model import Hyperparameters
from lightning_elche.contracts.records import RunRecord
from lightning_elche.contracts.runfolder.artifacts import write_run
from lightning_elche.contracts.runfolder.runrecord import hyperparameters_of, read_run

LEAST: dict[str, Any] = {
    "schema": "elche/run-v1",
    "run_id": "r",
    "attempt": 0,
    "status": "OK",
    "epochs_completed": 1,
    "steps": 2,
    "contract": {},
    "mode": "finetune",
    "device": "cpu",
    "world_size": 1,
    "logged_ranks": [0],
}


def read(tmp_path: Path, **changed: Any) -> RunRecord:
    path = tmp_path / "run.json"
    path.write_text(json.dumps({**LEAST, **changed}))
    return read_run(path)


def test_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Nothing is lost on the way to the file and back."""
    record = read(tmp_path, explicit=["lr_max"], seed=3, artifact_failures=["epoch 0"])
    write_run(tmp_path / "copy", record)
    assert read_run(tmp_path / "copy" / "run.json") == record


def test_record_knows_nothing_that_it_does_not_tell(tmp_path: Path) -> None:
    """A record may be short; where utilization came from is then not known."""
    record = read(tmp_path)
    assert (record.provenance, record.seed, record.gpu_util_source) == (None, None, "unavailable")


def test_record_may_tell_more(tmp_path: Path) -> None:
    """Fields of a later version do no harm."""
    assert read(tmp_path, weather="fine") == read(tmp_path)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"status": "FINE"}, "`status` must be"),
        ({"steps": 2.0}, "`steps` must be an integer"),
        ({"steps": -1}, "`steps` must be at least 0"),
        ({"mode": None}, "`mode` must be"),
        ({"logged_ranks": ["0"]}, r"`logged_ranks\[0\]` must be"),
        ({"schema": "elche/run-v2"}, "`schema` must be"),
    ],
)
def test_record_is_refused_if_it_is_none(
    tmp_path: Path, changed: dict[str, Any], problem: str
) -> None:
    """A value of another type, or one that cannot be, is named."""
    with pytest.raises(ValueError, match=f"is no run record: {problem}"):
        read(tmp_path, **changed)


ROW = {"regime": "finetune", "lr_max": 1e-4, "warmup_steps": 10, "target_val_loss": None}


@pytest.mark.parametrize(
    ("told", "known"),
    [
        (ROW, Hyperparameters(regime="finetune", lr_max=1e-4, warmup_steps=10)),
        (
            {**ROW, "momentum": 0.9},
            Hyperparameters(regime="finetune", lr_max=1e-4, warmup_steps=10),
        ),
        ({**ROW, "lr_max": "high"}, None),
        ({**ROW, "warmup_steps": 10.0}, None),
        ({**ROW, "regime": 1}, None),
        ({**ROW, "target_val_loss": "low"}, None),
        ({}, None),
    ],
)
def test_hyperparameters_are_known_if_all_are_told(
    tmp_path: Path, told: dict[str, Any], known: Hyperparameters | None
) -> None:
    """A row that lacks one, or has one of another type, is none."""
    assert hyperparameters_of(read(tmp_path, hyperparameters=told)) == known
