"""One fit under a training contract: what a rank measures, judges, logs and wants."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from lightning_elche.callbacks.gate_buffer import StepBuffer
from lightning_elche.callbacks.gate_folder import GateFolder, latest_attempt
from lightning_elche.callbacks.gate_meter import StepMeter, StepReading, count_tokens
from lightning_elche.callbacks.gate_options import GateOptions, Recovers
from lightning_elche.callbacks.gate_peers import GatePeers
from lightning_elche.callbacks.gate_record import first_record
from lightning_elche.callbacks.run_events import emit
from lightning_elche.contracts.aborts import abort_facts, violation_of
from lightning_elche.contracts.float32 import to_float32
from lightning_elche.contracts.gates import ids as gateids
from lightning_elche.contracts.gates.steps import is_clean
from lightning_elche.contracts.model import Contract
from lightning_elche.contracts.records import RunRecord, StepRecord
from lightning_elche.contracts.runfolder.runfacts import run_facts
from lightning_elche.contracts.runfolder.runlog import utc_now
from lightning_elche.contracts.session import GateSession
from lightning_elche.contracts.verdicts import Abort, Violation
from lightning_elche.exceptions import GateViolation
from lightning_elche.ops.gpu_util import GpuUtilization

if TYPE_CHECKING:
    import torch
    from lightning.pytorch import Trainer
    from torch import Tensor

__all__ = ["GateRun"]

MAX_SKIPS = 20


class GateRun:
    """Judges each step of this rank; is the rank's abort source.

    Args:
        trainer: About to train; every rank creates this at the same point.
        contract: What to judge by.
        options: As of `GateTrain`.
        run_dir: Folder of the run.
        restored: What `state_dict` returned on every rank, if the run is resumed.
        recovery: As of `GateTrain`.

    Attributes:
        session: The judge.
        peers: The other ranks.
        folder: The files.
        steps: Steps recorded by this rank.
        tokens: Tokens in them.
        stop_reason: Why training ends, once the contract ends it.
    """

    def __init__(
        self,
        trainer: Trainer,
        contract: Contract,
        options: GateOptions,
        *,
        run_dir: Path,
        restored: Mapping[str, Any] | None,
        recovery: Recovers | None = None,
    ) -> None:
        self._options = options
        self._recovery = recovery
        self._pending: Violation | None = None
        self._skips = 0
        self._epoch = trainer.current_epoch
        self._scaler = getattr(trainer.precision_plugin, "scaler", None)
        self._judges_numbers = contract.declares(gateids.INSTABILITY)
        self.steps = self.tokens = 0
        self.stop_reason: str | None = None
        device = trainer.strategy.root_device
        self._is_deferred = options.sync == "deferred" or (
            options.sync == "auto" and device.type == "cuda"
        )
        self._utilization = GpuUtilization(device)
        self._meter = StepMeter(
            num_tokens=options.num_tokens or count_tokens, clip_norm=options.clip_norm
        )
        self.peers = GatePeers(trainer, self)
        record = first_record(
            trainer,
            contract,
            options,
            gpu_util_source=self._utilization.source,
            shares_epochs=self.peers.has_events,
        )
        record = self._continued(record, run_dir, restored)
        self.session = GateSession(contract, run_facts(record))
        if restored is not None:
            self._restore(restored["ranks"], trainer.global_rank, trainer.world_size)
        self.folder = GateFolder(run_dir, record, rank=trainer.global_rank)
        self._buffer = StepBuffer(self._take, most=options.flush_every, within_ms=options.flush_ms)
        self.folder.begin(contract, epoch=max(self.session.val_losses, default=-1) + 1)
        name = "RUN_START" if restored is None else "RESUME"
        self.folder.event(name, step=self.steps, epoch=trainer.current_epoch)

    def _continued(
        self, record: RunRecord, run_dir: Path, restored: Mapping[str, Any] | None
    ) -> RunRecord:
        """Return the record with the identity that all ranks share: a new run's, or that resumed.

        Raises:
            ValueError: If a new run would mix its files with those of another one.
        """
        run_id = record.run_id if restored is None else restored["run_id"]
        attempt = 0 if restored is None else restored["attempt"] + 1
        found = latest_attempt(run_dir)
        run_id, attempt, found = self.peers.from_rank_zero((run_id, attempt, found))
        if restored is None and found is not None:
            raise ValueError(
                f"`run_dir` must be a folder without a run, got {run_dir}, which has a run.json. "
                "Resume that run by `ckpt_path`, or choose another folder."
            )
        # Two attempts may start from one checkpoint; the second one continues the first.
        attempt = max(attempt, 0 if found is None else found + 1)
        return replace(record, run_id=run_id, attempt=attempt)

    # The steps of this rank

    def begin_batch(self, batch: Any) -> None:  # noqa: ANN401  # whatever the DataLoader yields
        """Take note of a batch that is about to be trained."""
        self._meter.begin_batch(batch)

    def add_loss(self, loss: Tensor, *, accumulate: int) -> None:
        """Take note of the loss of a backward pass.

        Args:
            loss: As the backward pass takes it: divided by `accumulate`, times the loss scale.
            accumulate: The Trainer's `accumulate_grad_batches`.
        """
        scale = 1.0 if self._scaler is None else self._scaler.get_scale()
        self._meter.add_loss(loss, factor=accumulate / scale)

    def before_step(self, optimizer: torch.optim.Optimizer, *, epoch: int) -> None:
        """Take note of gradients; a rank alone stops here, before they spoil the parameters.

        Raises:
            GateViolation: If loss, gradients or learning rate are not finite.
        """
        self._meter.add_optimizer(optimizer)
        if self._is_deferred or self._scaler is not None or not self.peers.is_alone:
            return
        loss, norm, lr = self._meter.peek()
        is_amiss = self._judges_numbers and not math.isfinite(loss + norm + lr)
        if is_amiss and not self._is_undone():
            self._judge(StepReading(loss, norm, lr, tokens=0, wall_s=1.0, epoch=epoch))

    def end_batch(self, *, epoch: int) -> None:
        """Judge and log the step that is over, and let the other ranks hear of it.

        Raises:
            GateViolation: If a rule is broken and all ranks know.
        """
        self._meter.end_batch(epoch=epoch)
        self._read(newest=not self._is_deferred)
        self.peers.end_step()

    def _read(self, *, newest: bool) -> None:
        for reading in self._meter.readings(newest=newest):
            if self._pending is None:  # what follows a spoiled step is spoiled, too
                self._judge(reading)

    def _judge(self, reading: StepReading) -> None:
        self._epoch = reading.epoch
        if self._is_skipped(reading):
            return
        record = self._record_of(reading)
        if is_clean(record):
            self._buffer.add(record)
        else:
            self._buffer.drain()
            if not _is_finite(reading) and self._is_undone():
                self.folder.event("ROLLBACK", step=self.steps, epoch=reading.epoch)
                return
            violation = self.session.step(record)
            if violation is not None:
                self.want_abort(violation)
                return
            if self._judges_numbers or _can_be_logged(reading):
                self.folder.steps((record,))
        self.steps += 1
        self.tokens += reading.tokens
        if self.folder.failures and self._options.on_write_error == "raise":
            self.want_abort(self.write_failure(self.folder.failures))

    def _is_undone(self) -> bool:
        """Whether the step that would be recorded next is undone, or will be."""
        return self._recovery is not None and self._recovery.offer(self.steps)

    def _take(self, records: Sequence[StepRecord]) -> None:
        self.session.extend(records)
        self.folder.steps(records)

    def drain(self) -> None:
        """Judge and log all steps so far, as whoever looks at the session or the log expects."""
        self._buffer.drain()

    def _record_of(self, reading: StepReading) -> StepRecord:
        return StepRecord(
            step=self.steps,
            train_loss=reading.train_loss,
            grad_norm=reading.grad_norm,
            lr=reading.lr,
            tokens_per_sec=reading.tokens / max(reading.wall_s, 1e-9),
            gpu_util_pct=self._utilization.percent(),
            wall_ms=1000.0 * reading.wall_s,
            epoch=reading.epoch,
            attempt=self.folder.record.attempt,
        )

    def _is_skipped(self, reading: StepReading) -> bool:
        """Whether the loss scaler does not make this step, as it does while it finds its scale."""
        is_skipped = (
            self._scaler is not None
            and math.isfinite(reading.train_loss)
            and not math.isfinite(reading.grad_norm)
        )
        self._skips = self._skips + 1 if is_skipped else 0
        if is_skipped and self._skips <= MAX_SKIPS:
            self.folder.event("SCALER_SKIP", step=self.steps, grad_norm=reading.grad_norm)
        return is_skipped and self._skips <= MAX_SKIPS

    # What this rank wants, and what all agree on

    def want_abort(self, violation: Violation) -> None:
        """Ask all ranks for an abort.

        Raises:
            GateViolation: On a rank alone, at once.
        """
        self._pending = violation
        if self.peers.is_alone:
            self.abort(violation)

    def abort(self, violation: Violation, *, rank: int = 0) -> NoReturn:
        """Leave the evidence of what all ranks know of, and raise it.

        Here, since some launchers never call a callback's `on_exception`.

        Args:
            violation: What was broken.
            rank: By which rank.
        """
        epoch = self._epoch if violation.epoch is None else violation.epoch
        self.drain()
        facts = {**abort_facts(violation), "rank": rank, "epoch": epoch}
        self.folder.event("ABORT", **facts)
        emit("gate", **facts)
        reason, code = violation.abort.name, violation.exit_code
        self.finish("ABORTED", stop_reason=reason, exit_code=code)
        self.peers.close()
        raise GateViolation(violation, rank, self.peers.is_child)

    def finish(self, status: str, *, stop_reason: str | None, exit_code: int | None) -> None:
        """Write down how the run has ended and close its files; only the first call counts.

        Args:
            status: As of `RunRecord`.
            stop_reason: As of `RunRecord`.
            exit_code: As of `RunRecord`.
        """
        folder = self.folder
        if folder.record.ended_at is not None:
            return
        self.drain()
        folder.event("RUN_END", status=status, stop_reason=stop_reason)
        changed = replace(
            folder.record,
            status=status,
            stop_reason=stop_reason,
            exit_code=exit_code,
            steps=self.steps,
            artifact_failures=tuple(folder.failures),
            ended_at=utc_now(),
        )
        folder.publish(changed)
        folder.close()

    def write_failure(self, failures: list[str]) -> Violation:
        """Return the violation that lies in files that could not be written."""
        return Violation(
            gate=gateids.ARTIFACTS,
            abort=Abort.ARTIFACT_WRITE_FAILED,
            message=f"ARTIFACT_WRITE_FAILED: {'; '.join(failures)}",
        )

    def pending_abort(self, *, settle: bool = False) -> int:
        """As of `AbortSource`."""
        if settle:
            self._read(newest=True)
        return 0 if self._pending is None else self._pending.exit_code

    def words(self) -> str:
        """As of `AbortSource`."""
        return "" if self._pending is None else json.dumps(abort_facts(self._pending))

    def raise_agreed(self, code: int, rank: int, words: str) -> NoReturn:
        """As of `AbortSource`."""
        violation = violation_of(json.loads(words))
        assert violation is not None
        assert violation.exit_code == code
        self.abort(violation, rank=rank)

    # From one process to the next

    def state_dict(self) -> dict[str, Any]:
        """Return what this rank needs to go on; JSON-serialisable.

        What it says was trained is in the log, even if the process is killed right after it.
        """
        self.drain()
        return {"steps": self.steps, "tokens": self.tokens, "session": self.session.state_dict()}

    def _restore(self, states: list[dict[str, Any]], rank: int, world_size: int) -> None:
        """Go on where this rank was; ranks may have come or gone since."""
        is_new = rank >= len(states)
        own = states[0] if is_new else states[rank]
        self.steps = 0 if is_new else own["steps"]
        self.tokens = 0 if is_new else own["tokens"]
        if rank == 0:
            self.tokens += sum(state["tokens"] for state in states[world_size:])
        session = own["session"]
        if is_new:
            session = {**session, "steps": self.session.steps.state_dict()}
        self.session.load_state_dict(session)


def _is_finite(reading: StepReading) -> bool:
    return math.isfinite(reading.train_loss + reading.grad_norm + reading.lr)


def _can_be_logged(reading: StepReading) -> bool:
    """Whether strict JSON has the numbers of a step, as 32-bit floats."""
    numbers = (reading.train_loss, reading.grad_norm, reading.lr)
    return math.isfinite(sum(map(to_float32, numbers)))
