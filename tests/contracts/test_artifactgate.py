"""GATE-TRAIN-002."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lightning_elche.contracts.checking.check import check_run
from lightning_elche.contracts.model import Contract
from lightning_elche.contracts.verdicts import GateResult
from tests.contracts.runs import Attempt, Epoch, Run, digest, edit, train_healthily

DEFAULT = Contract.default()


def judged(run_dir: Path, contract: Contract = DEFAULT) -> GateResult:
    gates = ["GATE-TRAIN-002"]
    (result,) = check_run(run_dir, contract=contract, digest=digest, gates=gates).gates
    return result


def test_gate_passes_if_all_epochs_are_there(tmp_path: Path) -> None:
    """A checkpoint and metadata for each completed epoch."""
    result = judged(train_healthily(tmp_path))
    assert (result.verdict.value, result.reason) == ("PASS", "3 epochs")


def test_gate_is_open_before_the_first_epoch(tmp_path: Path) -> None:
    """Nothing was saved, and nothing had to be."""
    Run(tmp_path, DEFAULT).go(Attempt(epochs=(), status="INTERRUPTED"))
    result = judged(tmp_path)
    assert (result.verdict.value, result.reason) == ("INDETERMINATE", "no epoch was completed")


def test_gate_is_open_if_the_contract_names_no_files(tmp_path: Path) -> None:
    """Nobody knows where to look."""
    contract = replace(DEFAULT, checkpoint_template=None)
    result = judged(train_healthily(tmp_path), contract)
    assert result.reason == "the contract does not say where checkpoints and metadata lie"


def test_gate_fails_if_epochs_are_counted_from_one(tmp_path: Path) -> None:
    """The first epoch is epoch 0."""
    run_dir = train_healthily(tmp_path)
    for epoch in (2, 1, 0):
        for end in ("ckpt", "metadata.json"):
            path = run_dir / "ckpt" / f"epoch-{epoch:03d}.{end}"
            path.rename(path.with_name(f"epoch-{epoch + 1:03d}.{end}"))
        edit(run_dir / "ckpt" / f"epoch-{epoch + 1:03d}.metadata.json", epoch=epoch + 1)
    messages = [one.message for one in judged(run_dir).findings]
    assert "epoch 0 has no checkpoint" in messages
    assert "epoch 3 has a checkpoint, but 3 epochs were completed" in messages


@pytest.mark.parametrize("fault", ["checkpoint", "metadata"])
def test_gate_fails_if_something_could_not_be_written(tmp_path: Path, fault: str) -> None:
    """The run has said so itself, and says what it was."""
    Run(tmp_path, DEFAULT).go(Attempt(epochs=(Epoch(fault=fault), Epoch())))
    result = judged(tmp_path)
    assert result.verdict.value == "FAIL"
    assert result.findings[0].message == f"could not be written: {fault} of epoch 0"


def test_gate_fails_if_the_run_was_aborted_for_its_artifacts(tmp_path: Path) -> None:
    """Also if nothing else tells what was not written."""
    run_dir = train_healthily(tmp_path)
    edit(run_dir / "run.json", status="ABORTED", stop_reason="ARTIFACT_WRITE_FAILED")
    assert judged(run_dir).reason == "could not be written: the run was aborted for that"


@pytest.mark.parametrize(
    ("compute", "verdict"),
    [
        (digest, "PASS"),
        (lambda *_: "0" * 64, "FAIL"),
        (lambda *_: None, "INDETERMINATE"),
        (None, "INDETERMINATE"),
    ],
)
def test_digest_is_recomputed(
    tmp_path: Path, compute: Callable[[Path, str], str | None] | None, verdict: str
) -> None:
    """The gate passes if it is the one that was told, and is open if nobody can say."""
    report = check_run(train_healthily(tmp_path), digest=compute, gates=["GATE-TRAIN-002"])
    assert report.gates[0].verdict.value == verdict


def test_digest_is_of_the_algorithm_that_was_told(tmp_path: Path) -> None:
    """Files that do not tell it mean the one for Lightning checkpoints."""
    run_dir = train_healthily(tmp_path)
    edit(run_dir / "ckpt/epoch-001.metadata.json", optimizer_state_algo="another-v1")
    edit(run_dir / "ckpt/epoch-002.metadata.json", optimizer_state_algo=None)
    asked: list[str] = []
    check_run(run_dir, digest=lambda _, algorithm: asked.append(algorithm))
    assert asked == ["elche-state-v1", "another-v1", "elche-state-v1"]


def test_required_fields_are_those_of_the_contract(tmp_path: Path) -> None:
    """A contract may ask for fewer than the nine, but not for a digest that is none."""
    contract = replace(DEFAULT, metadata_fields=("epoch", "val_loss"))
    run_dir = train_healthily(tmp_path)
    path = run_dir / "ckpt/epoch-001.metadata.json"
    edit(path, train_ppl=None, tokens_seen=None, optimizer_state_sha=None, checkpoint_bytes=None)
    assert judged(run_dir, contract).verdict.value == "PASS"
    edit(path, optimizer_state_sha="none")
    assert judged(run_dir, contract).verdict.value == "FAIL"
