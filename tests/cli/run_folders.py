"""A healthy run on disk, for the tests of `elche contract`."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from lightning_elche.contracts.float32 import perplexity
from lightning_elche.contracts.model import Contract
from lightning_elche.contracts.records import EpochRecord, RunRecord, StepRecord
from lightning_elche.contracts.runfolder.artifacts import (
    write_contract_copy,
    write_epoch,
    write_run,
)
from lightning_elche.contracts.runfolder.runlog import RunLog
from lightning_elche.ops.state_digest import ALGORITHM, optimizer_state_digest

STEPS_PER_EPOCH = 4
LOSSES = (2.5, 2.0, 1.5)  # of training; validation loss is the same


def write_healthy_run(run_dir: Path, *, run_id: str = "first", clock_ms: float = 5000.0) -> Path:
    """Write a run of three epochs that passes all gates of the default contract."""
    contract = Contract.default()
    log = RunLog(run_dir, rank=0)
    log.event("RUN_START")
    for step in range(STEPS_PER_EPOCH * len(LOSSES)):
        log.step(_step(step, clock_ms))
    log.event("RUN_END")
    log.close()
    (run_dir / "ckpt").mkdir()
    for epoch, loss in enumerate(LOSSES):
        assert contract.checkpoint_template is not None
        assert contract.metadata_template is not None
        checkpoint = contract.checkpoint_template.format(epoch, run_dir)
        record = _epoch(epoch, loss, run_id, checkpoint)
        write_epoch(contract.metadata_template.format(epoch, run_dir), record)
    write_contract_copy(run_dir, contract.text)
    write_run(run_dir, _run(contract, run_id))
    return run_dir


def change_line(path: Path, number: int, old: str, new: str) -> None:
    """Replace text in one line of a file, counted from 1."""
    lines = path.read_text(encoding="utf-8").split("\n")
    assert old in lines[number - 1]
    lines[number - 1] = lines[number - 1].replace(old, new)
    path.write_text("\n".join(lines), encoding="utf-8")


def _step(step: int, clock_ms: float) -> StepRecord:
    return StepRecord(
        step=step,
        train_loss=LOSSES[step // STEPS_PER_EPOCH],
        grad_norm=0.5,
        lr=5e-5,
        tokens_per_sec=64_000.0 / clock_ms,
        gpu_util_pct=0.0,
        wall_ms=clock_ms,
        epoch=step // STEPS_PER_EPOCH,
        attempt=0,
    )


def _epoch(epoch: int, loss: float, run_id: str, checkpoint: Path) -> EpochRecord:
    states = [{"state": {0: {"momentum": torch.full((2,), float(epoch))}}, "param_groups": []}]
    torch.save({"optimizer_states": states}, checkpoint)
    sha, size = optimizer_state_digest(states)
    return EpochRecord(
        epoch=epoch,
        train_loss=loss,
        val_loss=loss,
        train_ppl=perplexity(loss),
        val_ppl=perplexity(loss),
        optimizer_state_sha=sha,
        wall_seconds=30.0,
        tokens_seen=64 * STEPS_PER_EPOCH * (epoch + 1),
        grad_norm_max=0.5,
        run_id=run_id,
        attempt=0,
        optimizer_state_algo=ALGORITHM,
        optimizer_state_bytes=size,
        checkpoint_sha256=hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        checkpoint_bytes=checkpoint.stat().st_size,
        train_loss_last100=loss,
    )


def _run(contract: Contract, run_id: str) -> RunRecord:
    row = contract.hyperparameter_defaults["finetune"]
    return RunRecord(
        run_id=run_id,
        attempt=0,
        status="OK",
        stop_reason="max_epochs",
        exit_code=0,
        started_at="2026-01-01T00:00:00Z",
        updated_at="2026-01-01T00:02:00Z",
        epochs_completed=len(LOSSES),
        steps=STEPS_PER_EPOCH * len(LOSSES),
        planned_batches=STEPS_PER_EPOCH,
        tokens_seen=64 * STEPS_PER_EPOCH * len(LOSSES),
        contract={
            "path": None,
            "id": contract.contract_id,
            "version": contract.version,
            "sha256": contract.sha256,
        },
        mode="finetune",
        vocab_size=None,
        hyperparameters={
            "regime": row.regime,
            "lr_max": row.lr_max,
            "warmup_steps": row.warmup_steps,
            "target_val_loss": row.target_val_loss,
        },
        explicit=(),
        seed=1,
        determinism={},
        provenance={"synthetic": False, "fast_dev_run": False, "overfit_batches": 0},
        device="cpu",
        gpu_util_source="none",
        token_unit="token",
        world_size=1,
        logged_ranks=(0,),
    )
