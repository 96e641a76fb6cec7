"""A training contract on one device: what ends a run, and how that is told."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from lightning_elche.callbacks.run_events import subscribe
from lightning_elche.contracts.model import Contract
from tests.callbacks.gated import Scripted, fit_gated, lines_of, run_of, violation_of_fit


@pytest.mark.parametrize("sync", ["immediate", "deferred"])
def test_loss_that_is_not_finite_aborts(sync: str, tmp_path: Path) -> None:
    """The step is named, and its record is not written."""
    err = violation_of_fit(tmp_path, model=Scripted(nan_at=3), gate={"sync": sync})
    assert str(err).startswith("NUMERICAL_INSTABILITY at step 3: train_loss = nan")
    assert (err.exit_code, err.violation.gate) == (27, "GATE-TRAIN-007")
    assert len(lines_of(tmp_path / "train.jsonl")) == 3
    assert run_of(tmp_path)["status"] == "ABORTED"


def test_rank_alone_stops_before_the_step_is_made(tmp_path: Path) -> None:
    """Its parameters are as before."""
    model = Scripted(nan_at=3)
    violation_of_fit(tmp_path, model=model)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_abort_is_told_by_its_event(tmp_path: Path) -> None:
    """The log is clean, so that this is the evidence."""
    violation_of_fit(tmp_path, model=Scripted(nan_at=3))
    names = [line["event"] for line in lines_of(tmp_path / "events.jsonl")]
    assert names == ["RUN_START", "ABORT", "RUN_END"]


def test_abort_is_told_to_subscribers(tmp_path: Path) -> None:
    """With its rule, its step and what was measured there."""
    told: list[dict[str, Any]] = []
    forget = subscribe(lambda kind, data: told.append({"kind": kind, **data}))
    violation_of_fit(tmp_path, model=Scripted(nan_at=3))
    forget()
    (event,) = (one for one in told if one["kind"] == "gate")
    assert (event["gate"], event["step"], event["rank"]) == ("GATE-TRAIN-007", 3, 0)


@pytest.mark.parametrize(
    ("losses", "options", "message"),
    [
        ((31.99,), {}, "DIVERGENCE at epoch 0: val_loss 31.99 > 10 (finetune cap)"),
        ((3.5, 7.1), {}, "DIVERGENCE at epoch 1: val_loss 7.1 > 2.0 x 3.5 (ratio 2.029)"),
        ((25.0,), {"mode": "from_scratch", "vocab_size": 50257}, "DIVERGENCE at epoch 0: val_loss"),
        ((3.0, math.nan), {}, "NUMERICAL_INSTABILITY at epoch 1: val_loss = nan"),
    ],
)
def test_validation_loss_aborts_before_anything_is_saved(
    losses: tuple[float, ...], options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """Neither here nor by a ModelCheckpoint beside us."""
    saver = ModelCheckpoint(tmp_path / "other", save_top_k=-1, every_n_epochs=1)
    err = violation_of_fit(
        tmp_path / "run",
        model=Scripted(losses),
        gate=options,
        callbacks=[saver],
        enable_checkpointing=True,
        max_epochs=4,
    )
    assert str(err).startswith(message)
    assert len(list((tmp_path / "run").glob("ckpt/*.ckpt"))) == len(losses) - 1
    assert len(list((tmp_path / "other").glob("*.ckpt"))) == len(losses) - 1


def test_loss_of_twice_the_last_one_goes_on(tmp_path: Path) -> None:
    """And 18 in the first epoch, if the model knows nothing yet."""
    gate = {"mode": "from_scratch", "vocab_size": 50257}
    trainer, _ = fit_gated(tmp_path, model=Scripted((18.0, 36.0)), gate=gate, max_epochs=2)
    assert trainer.current_epoch == 2


def test_absent_validation_loss_aborts(tmp_path: Path) -> None:
    """Its name may be misspelt."""
    err = violation_of_fit(tmp_path, gate={"val_loss": "valid_loss"})
    assert str(err).startswith("METRIC_MISSING at epoch 0: val_loss is absent")
    assert err.exit_code == 21


@pytest.mark.parametrize(
    ("losses", "status", "reason", "epochs"),
    [
        ((3.0, 3.1, 3.1, 3.1, 2.9), "EARLY_STOP", "patience", 4),
        ((3.0, 3.1, 2.9, 3.0, 3.0, 3.0, 1.0), "EARLY_STOP", "patience", 6),
        ((3.0, 2.9, 2.0, 1.9), "OK", "target", 3),
        ((2.0, 1.9, 1.8, 1.7), "OK", "target", 3),
    ],
    ids=["third miss", "after a best", "target", "not before the third epoch"],
)
def test_contract_ends_a_run(
    losses: tuple[float, ...], status: str, reason: str, epochs: int, tmp_path: Path
) -> None:
    """By patience or target, and the exit code is 0."""
    fit_gated(tmp_path, model=Scripted(losses), max_epochs=10)
    run = run_of(tmp_path)
    assert (run["status"], run["stop_reason"], run["exit_code"]) == (status, reason, 0)
    assert run["epochs_completed"] == epochs


def test_other_callback_may_stop_earlier(tmp_path: Path) -> None:
    """Lightning's own stops at the second miss."""
    stopping = EarlyStopping("val_loss", patience=2)
    model = Scripted((3.0, 3.1, 3.1, 3.1))
    fit_gated(tmp_path, model=model, callbacks=[stopping], max_epochs=10)
    run = run_of(tmp_path)
    assert (run["status"], run["stop_reason"], run["epochs_completed"]) == ("OK", "external", 3)


def test_run_that_is_interrupted_has_no_verdict(tmp_path: Path) -> None:
    """It may be resumed."""

    class Breaks(Scripted):
        def on_train_epoch_start(self) -> None:
            if self.current_epoch == 1:
                raise ArithmeticError("no fault of the contract's")

    with pytest.raises(ArithmeticError):
        fit_gated(tmp_path, model=Breaks(), max_epochs=3)
    run = run_of(tmp_path)
    assert (run["status"], run["exit_code"], run["epochs_completed"]) == ("INTERRUPTED", None, 1)


def test_max_steps_end_a_run_within_an_epoch(tmp_path: Path) -> None:
    """The epoch that is begun has no artifacts."""
    fit_gated(tmp_path, max_steps=15, max_epochs=-1)
    run = run_of(tmp_path)
    assert (run["stop_reason"], run["steps"], run["epochs_completed"]) == ("max_steps", 15, 1)


def contract_without(*gates: str) -> Contract:
    default = Contract.default()
    return replace(default, gates=tuple(gate for gate in default.gates if gate.id not in gates))


def test_gate_that_is_not_declared_stops_nothing(tmp_path: Path) -> None:
    """Without 001 a run may lack its validation loss, and then has no artifacts."""
    contract = contract_without("GATE-TRAIN-001")
    fit_gated(tmp_path, gate={"contract": contract, "val_loss": "valid_loss"})
    assert (run_of(tmp_path)["epochs_completed"], (tmp_path / "ckpt").exists()) == (0, False)


def test_step_that_json_cannot_hold_is_not_logged(tmp_path: Path) -> None:
    """Without 007 training goes on with numbers that are not finite."""
    contract = contract_without("GATE-TRAIN-005", "GATE-TRAIN-007")
    fit_gated(tmp_path, model=Scripted(nan_at=8), gate={"contract": contract})
    steps = [line["step"] for line in lines_of(tmp_path / "train.jsonl")]
    assert (steps, run_of(tmp_path)["steps"]) == (list(range(8)), 10)
