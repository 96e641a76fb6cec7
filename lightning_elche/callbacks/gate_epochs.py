"""What is decided at the end of an epoch: divergence, checkpoint, patience, target."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Protocol

from lightning.pytorch.utilities import rank_zero_warn

from lightning_elche.callbacks.gate_checkpoint import EpochCheckpoint, SavedCheckpoint
from lightning_elche.callbacks.gate_options import GateOptions
from lightning_elche.callbacks.gate_run import GateRun
from lightning_elche.contracts.float32 import perplexity
from lightning_elche.contracts.model import Contract
from lightning_elche.contracts.records import EpochRecord
from lightning_elche.contracts.runfolder.artifacts import epoch_facts, write_epoch
from lightning_elche.contracts.session import EpochEnd
from lightning_elche.data.cycle import Cycle

if TYPE_CHECKING:
    from pathlib import Path

    from lightning.pytorch import Trainer

__all__ = ["EpochSaver", "GateEpochs"]

STOPS = {
    EpochEnd.EARLY_STOP: ("patience", "EARLY_STOP"),
    EpochEnd.TARGET: ("target", "TARGET_REACHED"),
}


class EpochSaver(Protocol):
    """Saves the checkpoint of the present epoch."""

    def save(self, trainer: Trainer, path: Path) -> SavedCheckpoint | str:
        """As `EpochCheckpoint.save`."""
        ...


class GateEpochs:
    """Judges epochs, the same way on every rank; each calls every method at the same point.

    Args:
        trainer: Of the run.
        run: Judges the steps.
        contract: What to judge by.
        options: As of `GateTrain`.
        saver: Saves the checkpoints of epochs, `None` if nobody does.
        elapsed_s: How long the first epoch has lasted before, in seconds.
    """

    def __init__(
        self,
        trainer: Trainer,
        run: GateRun,
        contract: Contract,
        options: GateOptions,
        *,
        saver: EpochSaver | None,
        elapsed_s: float = 0.0,
    ) -> None:
        self._trainer = trainer
        self._run = run
        self._contract = contract
        self._options = options
        self._has_warned = False
        self._has_cycled = False
        self._earlier_s = elapsed_s
        self._saver = saver
        self.begin()

    def begin(self) -> None:
        """Begin an epoch."""
        self._began = time.monotonic() - self._earlier_s
        self._val_loss: float | None = None
        self._closed: tuple[EpochRecord, EpochEnd] | None = None

    def note(self, checkpoint: dict[str, Any]) -> None:
        """As `EpochCheckpoint.note`."""
        if isinstance(self._saver, EpochCheckpoint):
            self._saver.note(checkpoint)

    @property
    def elapsed_s(self) -> float:
        """How long the present epoch has lasted, in seconds; 0 once it is judged."""
        return 0.0 if self._closed else time.monotonic() - self._began

    def validated(self, *, closes_epoch: bool) -> None:
        """Take in a validation, before anybody can save a checkpoint because of it.

        Args:
            closes_epoch: Whether it is the last of the epoch.

        Raises:
            GateViolation: If the loss is missing or not finite, or tells of divergence.
        """
        self._run.peers.settle()
        self._val_loss = self._agreed_val_loss()
        if self._val_loss is None or not math.isfinite(self._val_loss):
            self._judge()
        if closes_epoch and self._val_loss is not None:
            self._close()

    def _judge(self) -> None:
        violation = self._run.session.val(self._trainer.current_epoch, self._val_loss)
        if violation is not None:
            self._run.abort(violation)

    def _close(self) -> tuple[EpochRecord, EpochEnd]:
        """Judge the epoch; checkpoints that are saved from now on hold that it is over."""
        self._judge()
        record = self._record()
        self._closed = record, self._run.session.close_epoch(record)
        return self._closed

    def _agreed_val_loss(self) -> float | None:
        own = self._trainer.callback_metrics.get(self._options.val_loss)
        values = self._run.peers.gather(None if own is None else float(own))
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            return None
        if len({value.hex() for value in known}) == 1:
            return known[0]
        self._run.folder.event("VAL_NOT_SYNCED", epoch=self._trainer.current_epoch, values=known)
        if not self._has_warned:
            self._has_warned = True
            rank_zero_warn(
                f"`{self._options.val_loss}` differs from rank to rank ({known}); GateTrain judges "
                "the mean. Log it with `sync_dist=True`."
            )
        return math.fsum(known) / len(known)

    def end(self) -> None:
        """Save the artifacts of the epoch, and stop if the contract says so.

        Raises:
            GateViolation: If the stream of data ended early, the loss diverged, or if artifacts
                could not be written and `on_write_error="raise"`.
        """
        run, trainer = self._run, self._trainer
        run.peers.settle()
        self._earlier_s = 0.0
        self._note_cycle()
        self._check_batches()
        if self._val_loss is None:
            return  # an epoch without a validation has no artifacts
        record, end = self._closed or self._close()
        record = self._save(record)
        self._check_failures()
        self._publish(record)
        if end in STOPS:
            run.stop_reason, event = STOPS[end]
            trainer.should_stop = True
            run.folder.event(event, epoch=record.epoch, val_loss=record.val_loss)

    def _note_cycle(self) -> None:
        data = getattr(self._trainer.train_dataloader, "dataset", None)
        if self._has_cycled or not isinstance(data, Cycle) or not data.has_wrapped:
            return
        self._has_cycled = True
        run, epoch = self._run, self._trainer.current_epoch
        run.session.cycle(epoch, run.tokens)
        run.folder.event("CYCLE", epoch=epoch, tokens=run.tokens)

    @property
    def _batches(self) -> int:
        """Batches of this rank in the present epoch."""
        return self._trainer.fit_loop.epoch_loop.batch_progress.current.ready

    def _check_batches(self) -> None:
        """Make sure that the data have lasted for what was planned."""
        trainer, run = self._trainer, self._run
        epoch, planned = trainer.current_epoch, trainer.num_training_batches
        is_out_of_steps = trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps
        if trainer.should_stop or is_out_of_steps or math.isinf(planned):
            return
        seen = run.peers.gather(self._batches)
        # Under averaging events a rank trains what it gets; elsewhere each has its own plan.
        batches, planned = (sum(seen), 1) if run.peers.has_events else (min(seen), int(planned))
        if batches < planned:
            violation = run.session.exhausted(
                epoch=epoch, batches=batches, planned=planned, tokens=run.tokens
            )
            if violation is not None:
                run.abort(violation)

    def _record(self) -> EpochRecord:
        """Return the epoch as all ranks have trained it, without its checkpoint."""
        trainer, run = self._trainer, self._run
        epoch, val_loss = trainer.current_epoch, self._val_loss
        assert val_loss is not None
        run.drain()
        totals = run.session.steps.epochs.get(epoch)
        own = (
            (0, 0.0, 0.0, math.nan)
            if totals is None
            else (
                totals.steps,
                totals.train_loss * totals.steps,
                totals.grad_norm_max,
                totals.train_loss_last100,
            )
        )
        rows = run.peers.gather((*own, run.tokens, self._batches))
        steps = sum(row[0] for row in rows)
        train_loss = math.fsum(row[1] for row in rows) / max(steps, 1)
        return EpochRecord(
            epoch=epoch,
            train_loss=train_loss,
            val_loss=val_loss,
            train_ppl=perplexity(train_loss),
            val_ppl=perplexity(val_loss),
            optimizer_state_sha="",
            wall_seconds=self.elapsed_s,
            tokens_seen=sum(row[4] for row in rows),
            grad_norm_max=max(row[2] for row in rows),
            run_id=run.folder.record.run_id,
            attempt=run.folder.record.attempt,
            train_loss_last100=rows[0][3],
            batches=None if run.peers.has_events else min(row[5] for row in rows),
        )

    def _save(self, record: EpochRecord) -> EpochRecord:
        """Save the epoch's checkpoint, then its metadata; return these."""
        template, metadata = self._contract.checkpoint_template, self._contract.metadata_template
        if self._saver is None or template is None or metadata is None:
            return record
        folder = self._run.folder
        path = template.format(record.epoch, folder.run_dir)
        saved = self._saver.save(self._trainer, path)
        if isinstance(saved, str):
            self._note_failure(f"{path.name}: {saved}", record)
            return record
        record = replace(record, **asdict(saved))
        if self._trainer.is_global_zero:
            path = metadata.format(record.epoch, folder.run_dir)
            if not folder.attempt(path.name, lambda: write_epoch(path, record)):
                self._note_failure(folder.failures[-1], record)
        return record

    def _note_failure(self, words: str, record: EpochRecord) -> None:
        """Leave in the events what the metadata would have said."""
        folder, epoch = self._run.folder, record.epoch
        folder.event("CKPT_FAILED", epoch=epoch, reason=words, metadata=epoch_facts(record))
        if self._trainer.is_global_zero:
            folder.note_failure(words)
            rank_zero_warn(f"An artifact of epoch {epoch} was not written: {words}")

    def failures(self) -> list[str]:
        """Return what any rank could not write; every rank calls this at the same point."""
        of_ranks = self._run.peers.gather(self._run.folder.failures)
        return list(dict.fromkeys(words for failures in of_ranks for words in failures))

    def _check_failures(self) -> None:
        failures = self.failures()
        if failures and self._options.on_write_error == "raise":
            self._run.abort(self._run.write_failure(failures))

    def _publish(self, record: EpochRecord) -> None:
        """Bring the run's record up to date, and log how the validation loss develops."""
        run, session = self._run, self._run.session
        best = session.best_epoch
        changed = replace(
            run.folder.record,
            epochs_completed=len(session.val_losses),
            steps=run.steps,
            tokens_seen=record.tokens_seen,
            artifact_failures=tuple(run.folder.failures),
            last_val_loss={"epoch": record.epoch, "val_loss": record.val_loss},
            best_val_loss=None if best is None else {"epoch": best, "val_loss": session.best},
        )
        run.folder.publish(changed)
        before = session.val_losses.get(record.epoch - 1)
        metrics = {"gate/misses": float(session.misses)}
        if before:
            metrics["gate/val_ratio"] = record.val_loss / before
        for logger in self._trainer.loggers if self._trainer.is_global_zero else ():
            logger.log_metrics(metrics, step=self._trainer.global_step)
