"""A run that was changed afterwards, one field or file at a time."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_elche.contracts.checking.check import check_run, exit_code
from lightning_elche.contracts.runfolder.rundir import RunUnreadable
from lightning_elche.contracts.verdicts import Severity
from lightning_elche.exceptions import ContractError
from tests.contracts.checked import METADATA, OTHER_ROW, failed, flip_bit, rules_of
from tests.contracts.runs import digest, edit

SYNTHETIC = {"synthetic": True, "fast_dev_run": False, "overfit_batches": 0}


@pytest.mark.parametrize(
    ("name", "changed", "gates"),
    [
        ("run.json", {"status": "ABORTED", "stop_reason": "DIVERGENCE"}, ["005"]),
        ("run.json", {"status": "ABORTED", "stop_reason": "boredom"}, ["001"]),
        ("run.json", {"status": "EARLY_STOP"}, ["004"]),
        ("run.json", {"steps": 7}, ["001"]),
        ("run.json", {"epochs_completed": 4}, ["002"]),
        ("run.json", {"epochs_completed": 2}, ["002"]),
        ("run.json", {"run_id": "another"}, ["002"]),
        ("run.json", {"artifact_failures": ["epoch 9"]}, ["002"]),
        ("run.json", {"hyperparameters": OTHER_ROW}, ["009"]),
        ("run.json", {"provenance": SYNTHETIC}, ["010"]),
        (METADATA, {"epoch": 2}, ["002"]),
        (METADATA, {"epoch": 1.0}, ["002"]),
        (METADATA, {"train_loss": "2.5"}, ["002"]),
        (METADATA, {"train_ppl": 12.0}, ["002"]),
        (METADATA, {"train_ppl": None}, ["002"]),
        (METADATA, {"val_loss": 2.6}, ["002"]),  # no longer fits its perplexity
        (METADATA, {"val_loss": float("nan")}, ["002", "005", "007"]),
        (METADATA, {"val_loss": "NaN"}, ["002", "005", "007"]),
        (METADATA, {"val_loss": 6.1, "val_ppl": 445.857764}, ["005"]),
        (METADATA, {"optimizer_state_sha": "0" * 64}, ["002"]),
        (METADATA, {"optimizer_state_sha": "A" * 64}, ["002"]),
        (METADATA, {"optimizer_state_algo": "another"}, ["002"]),
        (METADATA, {"checkpoint_sha256": "0" * 64}, ["002"]),
        (METADATA, {"checkpoint_bytes": 1}, ["002"]),
        (METADATA, {"tokens_seen": 2048}, ["002"]),
        (METADATA, {"grad_norm_max": -1.5}, ["002"]),
        (METADATA, {"wall_seconds": -1.0}, ["002"]),
        (METADATA, {"run_id": "another"}, ["002"]),
    ],
)  # fmt: skip
def test_gate_fails_if_a_field_was_changed(
    run_dir: Path, name: str, changed: dict[str, Any], gates: list[str]
) -> None:
    """A field that contradicts another, or a rule, turns a verdict."""
    edit(run_dir / name, **changed)
    report = check_run(run_dir, digest=digest)
    assert failed(report) == gates
    assert exit_code(report) == 1


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({"train_loss": 2.6, "train_ppl": 13.463738}, "EV-TRAIN-LOSS"),
        ({"tokens_seen": 4200}, "EV-TOKENS-CLOCK"),
        ({"wall_seconds": 0.5}, "EV-WALL"),
        ({"val_loss": 0.2, "val_ppl": 1.22140276}, "EV-VAL-LOW"),
    ],
)
def test_field_is_suspicious_if_it_was_changed(
    run_dir: Path, changed: dict[str, Any], rule: str
) -> None:
    """What an honest run may also do is a warning, which `is_strict` turns into an error."""
    edit(run_dir / METADATA, **changed)
    report = check_run(run_dir, digest=digest)
    assert rule in rules_of(report, Severity.WARNING)
    assert exit_code(report, is_strict=True) == 1


def cut_line(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))


@pytest.mark.parametrize(
    ("name", "change", "code"),
    [
        ("train.jsonl", Path.unlink, 4),
        ("train.jsonl", cut_line, 1),
        ("train.jsonl", flip_bit, 1),
        ("events.jsonl", Path.unlink, 1),
        ("ckpt/epoch-001.ckpt", Path.unlink, 1),
        ("ckpt/epoch-001.ckpt", flip_bit, 1),
        (METADATA, Path.unlink, 1),
        (METADATA, flip_bit, 1),
    ],
)
def test_file_that_was_changed_is_noticed(
    run_dir: Path, name: str, change: Callable[[Path], None], code: int
) -> None:
    """A file that is missing or damaged does not pass."""
    change(run_dir / name)
    assert exit_code(check_run(run_dir, digest=digest)) == code


@pytest.mark.parametrize("name", ["run.json", "contract.yaml"])
def test_file_without_which_nothing_is_known_is_an_error(run_dir: Path, name: str) -> None:
    """A broken run record or copy of the contract is no reason to judge without it."""
    flip_bit(run_dir / name)
    with pytest.raises((RunUnreadable, ContractError)):
        check_run(run_dir, digest=digest)


def test_copy_of_the_contract_that_was_changed_is_an_error(run_dir: Path) -> None:
    """A run that is judged by itself cannot make its rules milder afterwards."""
    path = run_dir / "contract.yaml"
    path.write_text(path.read_text().replace("patience_epochs: 2", "patience_epochs: 9"))
    report = check_run(run_dir, digest=digest)
    assert rules_of(report, Severity.ERROR) == {"EV-CONTRACT-DRIFT"}
    assert exit_code(report) == 1


def test_pipe_in_place_of_a_log_does_not_make_the_checker_wait(run_dir: Path) -> None:
    """What is no regular file is refused, not opened."""
    (run_dir / "train.jsonl").unlink()
    os.mkfifo(run_dir / "train.jsonl")
    with pytest.raises(OSError, match="is a pipe"):
        check_run(run_dir)


@pytest.mark.parametrize("size", [0, 77])
def test_lost_events_fail(run_dir: Path, size: int) -> None:
    """An abort may have been among them."""
    os.truncate(run_dir / "events.jsonl", size)
    assert failed(check_run(run_dir, digest=digest)) == ["001"]
