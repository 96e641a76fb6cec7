"""A training contract on one device: what is left behind, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.strategies import FSDPStrategy

from lightning_elche import GateTrain
from lightning_elche.callbacks.gate_options import refuse_sharded
from lightning_elche.contracts.model import Contract
from lightning_elche.exceptions import ContractError
from lightning_elche.ops.state_digest import recompute_optimizer_state_sha
from tests.callbacks.gated import fit_gated, lines_of, lines_of_metadata, run_of


def test_run_that_keeps_its_contract_leaves_its_evidence(tmp_path: Path) -> None:
    """A line per step, a checkpoint and metadata per epoch, a record of the run."""
    fit_gated(tmp_path, max_epochs=2)
    run = run_of(tmp_path)
    assert (run["status"], run["stop_reason"], run["exit_code"]) == ("OK", "max_epochs", 0)
    assert [line["step"] for line in lines_of(tmp_path / "train.jsonl")] == list(range(20))
    assert sorted(file.name for file in (tmp_path / "ckpt").iterdir()) == [
        "epoch-000.ckpt",
        "epoch-000.metadata.json",
        "epoch-001.ckpt",
        "epoch-001.metadata.json",
    ]


def test_metadata_say_what_the_log_says(tmp_path: Path) -> None:
    """Means, maxima and counts can be found again in the step log."""
    fit_gated(tmp_path, max_epochs=1)
    lines = lines_of(tmp_path / "train.jsonl")
    (epoch,) = lines_of_metadata(tmp_path)
    losses = [line["train_loss"] for line in lines]
    assert epoch["train_loss"] == pytest.approx(math.fsum(losses) / len(losses), rel=1e-6)
    assert epoch["grad_norm_max"] == max(line["grad_norm"] for line in lines)
    assert (epoch["tokens_seen"], epoch["val_loss"]) == (40, 3.0)


def test_digest_is_that_of_the_checkpoint(tmp_path: Path) -> None:
    """Whoever has the file can recompute it."""
    fit_gated(tmp_path, max_epochs=1)
    (epoch,) = lines_of_metadata(tmp_path)
    found = recompute_optimizer_state_sha(tmp_path / "ckpt/epoch-000.ckpt", "elche-state-v1")
    assert epoch["optimizer_state_sha"] == found
    assert epoch["optimizer_state_algo"] == "elche-state-v1"


def test_last_validation_of_an_epoch_counts(tmp_path: Path) -> None:
    """Where there are several, and none at its end."""
    fit_gated(tmp_path, val_check_interval=0.3, max_epochs=2)
    assert [epoch["val_loss"] for epoch in lines_of_metadata(tmp_path)] == [3.0, 2.875]


@pytest.mark.parametrize(
    ("gate", "trainer", "message"),
    [
        ({"mode": "from_scratch"}, {}, "`vocab_size` must be at least 2"),
        ({"mode": "scratch"}, {}, "`mode` must be one of"),
        ({"clip_norm": 0.0}, {}, "`clip_norm` must be positive"),
        ({"clip_norm": 1.0}, {"gradient_clip_val": 1.0}, "`clip_norm` must not be set together"),
        ({"flush_every": 0}, {}, "`flush_every` must be at least 1"),
        ({"overrides": {"lr": 1.0}}, {}, "`overrides`"),
        ({}, {"min_epochs": 4}, "must be at most 3"),
        ({}, {"check_val_every_n_epoch": 2}, "check_val_every_n_epoch=1"),
        ({}, {"limit_val_batches": 0}, "validation off"),
    ],
)
def test_option_that_cannot_work_is_refused(
    gate: dict[str, Any], trainer: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """Before a step is made, by its name."""
    with pytest.raises(ValueError, match=message):
        fit_gated(tmp_path, gate=gate, **trainer)


def test_sharded_gradients_are_refused() -> None:
    """A rank does not know their norm."""
    with pytest.raises(ValueError, match=r"whole gradients.*got FSDPStrategy"):
        refuse_sharded(FSDPStrategy())


def test_contract_that_is_not_valid_is_refused(tmp_path: Path) -> None:
    """With the place in the file."""
    (tmp_path / "c.yaml").write_text("metadata: {version: 1.0}\n")
    with pytest.raises(ContractError, match="version"):
        GateTrain(tmp_path / "c.yaml")


def test_contract_may_be_a_file_or_an_object(tmp_path: Path) -> None:
    """The copy in the folder is the file, byte by byte."""
    contract = Contract.default()
    (tmp_path / "c.yaml").write_bytes(contract.text)
    fit_gated(tmp_path / "run", gate={"contract": tmp_path / "c.yaml"})
    assert (tmp_path / "run/contract.yaml").read_bytes() == contract.text
