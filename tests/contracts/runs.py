"""A training run by hand: judged live, while it writes the folder that is judged afterwards."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lightning_elche.contracts.aborts import abort_facts
from lightning_elche.contracts.float32 import perplexity
from lightning_elche.contracts.gates.hyperparameters import resolve_hyperparameters
from lightning_elche.contracts.model import Contract
from lightning_elche.contracts.records import EpochRecord, RunRecord, StepRecord
from lightning_elche.contracts.runfolder.artifacts import (
    epoch_facts,
    supersede_epochs,
    write_contract_copy,
    write_epoch,
    write_run,
)
from lightning_elche.contracts.runfolder.runlog import RunLog
from lightning_elche.contracts.session import EpochEnd, GateSession, RunEnd, RunFacts
from lightning_elche.contracts.verdicts import Abort, GateResult, Violation

HEALTHY_STEP: Mapping[str, Any] = {
    "train_loss": 2.5,
    "grad_norm": 1.5,
    "lr": 5e-5,
    "tokens_per_sec": 2048.0,
    "gpu_util_pct": 0.0,
    "wall_ms": 500.0,
}
REAL_DATA = {"synthetic": False, "fast_dev_run": False, "overfit_batches": 0}
TOKENS_PER_STEP = 1024


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step of a trace: what is not healthy about it.

    Attributes:
        changed: Values of fields; `None` for one that is absent.
        skips: So many numbers of steps are left out before it.
        rank: The rank on which that is so.
    """

    changed: Mapping[str, float | None] = field(default_factory=dict)
    skips: int = 0
    rank: int = 0


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """An epoch of a trace.

    Attributes:
        steps: Its steps.
        val_loss: At its end, "absent" if nobody has logged it, "none" without a validation.
        is_short: Whether the data end before their time.
        is_cycled: Whether it was told that they are repeated.
        fault: What cannot be written: "checkpoint", "metadata" or nothing.
        changed: Fields of its record that are made up.
    """

    steps: tuple[Step, ...] = (Step(), Step())
    val_loss: float | str = 3.0
    is_short: bool = False
    is_cycled: bool = False
    fault: str = ""
    changed: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """Epochs trained in one go.

    Attributes:
        epochs: The epochs.
        from_epoch: The first of them, if all before were saved: later ones are trained again.
        status: How it ends if nothing else ends it.
        tail: Bytes that a crash leaves at the end of the step log.
        is_stubborn: Whether it goes on where it should stop.
    """

    epochs: tuple[Epoch, ...]
    from_epoch: int = 0
    status: str = "OK"
    tail: bytes = b""
    is_stubborn: bool = False


class Aborted(Exception):
    """The run is over."""


def digest(checkpoint: Path, algorithm: str) -> str | None:
    """Return the digest that the runs below write into their metadata."""
    return hashlib.sha256(algorithm.encode() + checkpoint.read_bytes()).hexdigest()


class Run:
    """Trains as a trace says.

    Args:
        run_dir: Where the files go.
        contract: The rules.
        num_ranks: Ranks, each with a log; they differ only in what a `Step` says.
        **changed: Fields of the run record.
    """

    def __init__(
        self, run_dir: Path, contract: Contract, *, num_ranks: int = 1, **changed: Any
    ) -> None:
        self.run_dir = run_dir
        self.contract = contract
        self.num_ranks = num_ranks
        self.attempt = -1
        self.failures: list[str] = []
        self.end = RunEnd(status="RUNNING", stop_reason=None, epochs_completed=0)
        self.saved: list[str] = []
        row, explicit = resolve_hyperparameters(contract, mode="finetune")
        assert row is not None
        self.facts = RunFacts(
            mode="finetune",
            hyperparameters=row,
            explicit=explicit,
            device="cpu",
            gpu_util_source="none",
            provenance=REAL_DATA,
            planned_batches=None,
            world_size=num_ranks,
        )
        self.changed = changed
        write_contract_copy(run_dir, contract.text)

    def go(self, *attempts: Attempt) -> tuple[GateResult, ...]:
        """Train all attempts and return the live verdicts."""
        for attempt in attempts:
            self._train(attempt)
        logs = tuple(session.steps for session in self.sessions)
        return self.sessions[0].verdicts(self.end, logs)

    def _train(self, attempt: Attempt) -> None:
        self.attempt += 1
        self.sessions = [GateSession(self.contract, self.facts) for _ in range(self.num_ranks)]
        self.logs = [
            RunLog(self.run_dir, rank=rank, attempt=self.attempt, flush_ms=math.inf)
            for rank in range(self.num_ranks)
        ]
        self.step, self.tokens, self.completed = 0, 0, 0
        first = min(attempt.from_epoch, len(self.saved))
        if self.attempt:
            self._resume(first)
        status, reason = attempt.status, "max_epochs" if attempt.status == "OK" else None
        try:
            for number, epoch in enumerate(attempt.epochs, start=first):
                end = self._epoch(number, epoch)
                self._save()
                if end is not EpochEnd.NEXT and not attempt.is_stubborn:
                    is_early = end is EpochEnd.EARLY_STOP
                    status, reason = ("EARLY_STOP", "patience") if is_early else ("OK", "target")
                    break
            if self.failures and status in ("OK", "EARLY_STOP"):
                self._abort(_write_failure())
        except Aborted as err:
            status, reason = "ABORTED", str(err)
        self._close(status, reason, attempt.tail)

    def _resume(self, from_epoch: int) -> None:
        self.saved = self.saved[:from_epoch]
        if self.saved:
            state = json.loads(self.saved[-1])
            self.step, self.tokens, self.completed = state["counts"]
            for session, own in zip(self.sessions, state["sessions"], strict=True):
                session.load_state_dict(own)
        for log in self.logs:
            log.event("RESUME", epoch=from_epoch, step=self.step)
        supersede_epochs(self.run_dir, self.contract, from_epoch=from_epoch, attempt=self.attempt)

    def _save(self) -> None:
        state = {
            "counts": [self.step, self.tokens, self.completed],
            "sessions": [session.state_dict() for session in self.sessions],
        }
        self.saved.append(json.dumps(state, allow_nan=False))

    def _epoch(self, number: int, epoch: Epoch) -> EpochEnd:
        if epoch.is_cycled:
            self.sessions[0].cycle(number, self.tokens)
            self.logs[0].event("CYCLE", epoch=number, tokens=self.tokens)
        for step in epoch.steps:
            self._step(number, step)
        if epoch.is_short:
            self._raise(
                self.sessions[0].exhausted(
                    epoch=number, batches=len(epoch.steps), planned=9, tokens=self.tokens
                )
            )
        if epoch.val_loss == "none":
            return EpochEnd.NEXT
        val_loss = None if isinstance(epoch.val_loss, str) else epoch.val_loss
        self._raise(self.sessions[0].val(number, val_loss))
        if val_loss is None:
            return EpochEnd.NEXT  # a contract that asks for nothing lets this pass
        self.completed += 1
        return self._finish(number, val_loss, epoch)

    def _step(self, epoch: int, step: Step) -> None:
        self.step += step.skips
        found = None
        for rank, (session, log) in enumerate(zip(self.sessions, self.logs, strict=True)):
            changed = step.changed if rank == step.rank else {}
            values = {**HEALTHY_STEP, "step": self.step, "epoch": epoch, **changed}
            present = {name: value for name, value in values.items() if value is not None}
            is_whole = present.keys() >= HEALTHY_STEP.keys() - {"wall_ms"}
            violation = session.step(StepRecord(**present) if is_whole else present)
            if violation is None:
                log.step(StepRecord(**present))
            found = found or violation
        # Ranks agree on the abort before they raise it.
        self._raise(found)
        self.step += 1
        self.tokens += TOKENS_PER_STEP * self.num_ranks

    def _finish(self, number: int, val_loss: float, epoch: Epoch) -> EpochEnd:
        record = self._record(number, val_loss, epoch)
        checkpoint = self.contract.checkpoint_template
        metadata = self.contract.metadata_template
        assert checkpoint is not None
        assert metadata is not None
        if epoch.fault != "checkpoint":
            path = checkpoint.format(number, self.run_dir)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"weights %d" % number)
        if epoch.fault:
            self.failures.append(f"{epoch.fault} of epoch {number}")
            self.logs[0].event(
                "CKPT_FAILED",
                epoch=number,
                reason=self.failures[-1],
                metadata=epoch_facts(record),
            )
        else:
            write_epoch(metadata.format(number, self.run_dir), record)
        return self.sessions[0].close_epoch(record)

    def _record(self, number: int, val_loss: float, epoch: Epoch) -> EpochRecord:
        losses = [session.steps.epochs[number].train_loss for session in self.sessions]
        train_loss = sum(losses) / len(losses)
        content = b"weights %d" % number
        record = EpochRecord(
            epoch=number,
            train_loss=train_loss,
            val_loss=val_loss,
            train_ppl=perplexity(train_loss),
            val_ppl=perplexity(val_loss),
            optimizer_state_sha=hashlib.sha256(b"elche-state-v1" + content).hexdigest(),
            wall_seconds=100.0,
            tokens_seen=self.tokens,
            grad_norm_max=max(
                session.steps.epochs[number].grad_norm_max for session in self.sessions
            ),
            run_id="run",
            attempt=self.attempt,
            optimizer_state_algo="elche-state-v1",
            optimizer_state_bytes=64,
            checkpoint_sha256=hashlib.sha256(content).hexdigest(),
            checkpoint_bytes=len(content),
        )
        return replace(record, **epoch.changed)

    def _raise(self, violation: Violation | None) -> None:
        if violation is not None:
            self._abort(violation)

    def _abort(self, violation: Violation) -> None:
        self.sessions[0].abort(violation)
        epoch = {"epoch": len(self.saved)}
        self.logs[0].event("ABORT", **{**abort_facts(violation), **epoch})
        raise Aborted(violation.abort.name)

    def _close(self, status: str, reason: str | None, tail: bytes) -> None:
        for log in self.logs:
            log.event("RUN_END", status=status)
            log.close()
        if tail:
            with (self.run_dir / "train.jsonl").open("ab") as file:
                file.write(tail)
        self.end = RunEnd(status=status, stop_reason=reason, epochs_completed=self.completed)
        write_run(self.run_dir, self._run_record())

    def _run_record(self) -> RunRecord:
        row = self.facts.hyperparameters
        assert row is not None
        record = RunRecord(
            run_id="run",
            attempt=self.attempt,
            status=str(self.end.status),
            stop_reason=self.end.stop_reason,
            exit_code=0,
            started_at="2026-01-01T00:00:00.000+00:00",
            updated_at="2026-01-01T00:00:00.000+00:00",
            epochs_completed=self.completed,
            steps=self.sessions[0].steps.records,
            planned_batches=None,
            tokens_seen=self.tokens,
            contract={"path": None, "id": "C", "version": "1.0.0", "sha256": self.contract.sha256},
            mode="finetune",
            vocab_size=None,
            hyperparameters=vars(row),
            explicit=(),
            seed=7,
            determinism={},
            provenance=REAL_DATA,
            device="cpu",
            gpu_util_source="none",
            token_unit="token",
            world_size=self.num_ranks,
            logged_ranks=tuple(range(self.num_ranks)),
            artifact_failures=tuple(self.failures),
        )
        return replace(record, **self.changed)


def _write_failure() -> Violation:
    return Violation(
        gate="GATE-TRAIN-002",
        abort=Abort.ARTIFACT_WRITE_FAILED,
        message="ARTIFACT_WRITE_FAILED: see the events",
    )


def train_healthily(run_dir: Path, contract: Contract | None = None, **changed: Any) -> Path:
    """Train three epochs, the last one at the target, without anything to find fault with."""
    epochs = tuple(Epoch(val_loss=loss) for loss in (3.0, 2.5, 2.1))
    Run(run_dir, contract or Contract.default(), **changed).go(Attempt(epochs=epochs))
    return run_dir


def edit(path: Path, **changed: Any) -> None:
    """Change fields of a JSON file; `None` removes one."""
    facts = {**json.loads(path.read_text()), **changed}
    path.write_text(json.dumps({key: own for key, own in facts.items() if own is not None}))
