"""Enforces a training contract while a Trainer trains, and leaves the evidence for its checker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from typing_extensions import override

from lightning_elche.callbacks.gate_checkpoint import EpochCheckpoint
from lightning_elche.callbacks.gate_epochs import EpochSaver, GateEpochs
from lightning_elche.callbacks.gate_options import GateOptions, Recovers, check_trainer
from lightning_elche.callbacks.gate_partition import EpochPartition, find_saver
from lightning_elche.callbacks.gate_run import GateRun
from lightning_elche.callbacks.idle_hooks import leave_out_idle_hooks
from lightning_elche.contracts.model import Contract

if TYPE_CHECKING:
    import torch
    from lightning.pytorch import LightningModule, Trainer
    from torch import Tensor

__all__ = ["GateTrain"]

DEFAULT_FOLDER = "elche_run"
STATE_KEY = "lightning_elche.gate"


class GateTrain(Callback):
    """Stops a run the moment it breaks its contract, on all ranks, and records what it did.

    Every step's loss, gradient norm, learning rate and throughput are judged and logged, every
    epoch's validation loss is judged before a checkpoint can be saved. `elche contract check` comes
    to the same verdicts from the files in `run_dir` alone.

    Args:
        contract: The rules, or the file that holds them; patience, minimum epochs and limits come
            from there only. Default: `Contract.default()`.
        run_dir: Folder of the run. Default: the logger's folder, else `elche_run` below
            `default_root_dir`. Rank 0 decides.
        mode: "finetune", or "from_scratch" for a model that knows nothing yet: sets the limit of
            the first epoch and the default hyperparameters.
        vocab_size: Number of tokens, needed for "from_scratch".
        overrides: Any of `lr_max`, `warmup_steps`, `target_val_loss` where the run departs from the
            contract's defaults on purpose.
        val_loss: Key of the validation loss in `trainer.callback_metrics`.
        num_tokens: Returns the number of tokens in a batch. Default: elements of
            `batch["input_ids"]`, else the leading size of the first tensor.
        clip_norm: Clip gradients to this norm, at the price of taking it once; replaces
            `Trainer(gradient_clip_val=...)`.
        checkpoint: "lightning" to save a checkpoint of every epoch; "partition" to let the
            `PartitionCheckpoint` of the Trainer do it, in a folder below `run_dir`; "off" not to,
            which GATE-TRAIN-002 does not forgive. "partition" saves nothing in a fast dev run.
        on_write_error: "warn": train on and fail at the end. "raise": stop.
        synthetic: Declares scripted data, so that GATE-TRAIN-010 fails.
        log_ranks: "all" ranks write a step log, or only rank "zero".
        sync: When a step's numbers are read from the device: "immediate", "deferred" by one step,
            or "auto": deferred on CUDA only.
        flush_every: Steps that are written to the log at once.
        flush_ms: Milliseconds after which fewer are written.

    Attributes:
        contract: The rules.
        run_dir: The folder, once `fit` has begun.
        recovery: Undoes steps whose numbers are not finite; set by `Rollback`.

    Raises:
        ContractError: If `contract` is not valid.
        ValueError: If an option is not.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> from lightning_elche import ElCheStrategy, GateTrain
        >>> trainer = Trainer(
        ...     strategy=ElCheStrategy(),
        ...     accelerator="cpu",
        ...     devices=2,
        ...     callbacks=[GateTrain(run_dir="runs/first")],
        ...     logger=False,
        ... )
    """

    def __init__(
        self,
        contract: Contract | str | Path | None = None,
        *,
        run_dir: str | Path | None = None,
        mode: Literal["finetune", "from_scratch"] = "finetune",
        vocab_size: int | None = None,
        overrides: Mapping[str, float] | None = None,
        val_loss: str = "val_loss",
        num_tokens: Callable[[Any], int] | None = None,
        clip_norm: float | None = None,
        checkpoint: Literal["lightning", "partition", "off"] = "lightning",
        on_write_error: Literal["warn", "raise"] = "warn",
        synthetic: bool = False,
        log_ranks: Literal["all", "zero"] = "all",
        sync: Literal["auto", "immediate", "deferred"] = "auto",
        flush_every: int = 64,
        flush_ms: float = 100.0,
    ) -> None:
        self._options = GateOptions(
            run_dir=run_dir,
            mode=mode,
            vocab_size=vocab_size,
            overrides=dict(overrides or {}),
            val_loss=val_loss,
            num_tokens=num_tokens,
            clip_norm=clip_norm,
            checkpoint=checkpoint,
            on_write_error=on_write_error,
            synthetic=synthetic,
            log_ranks=log_ranks,
            sync=sync,
            flush_every=flush_every,
            flush_ms=flush_ms,
        )
        if contract is None:
            self.contract = Contract.default()
        else:
            self.contract = contract if isinstance(contract, Contract) else Contract.load(contract)
        self.run_dir = None if run_dir is None else Path(run_dir)
        self.recovery: Recovers | None = None
        self._saver: EpochSaver | None = None
        self._run: GateRun | None = None
        self._restored: dict[str, Any] | None = None

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        leave_out_idle_hooks(self)
        if stage != TrainerFn.FITTING:
            return
        check_trainer(trainer, self.contract, self._options)
        folder = self._options.run_dir
        if folder is None:
            # `log_dir` asks rank 0, on every rank.
            folder = trainer.log_dir or Path(trainer.default_root_dir) / DEFAULT_FOLDER
        self.run_dir = Path(trainer.strategy.broadcast(str(folder)))
        self._saver = self._epoch_saver(trainer, self.run_dir)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]  # set by a connector
            if isinstance(callback, ModelCheckpoint) and getattr(
                callback, "save_on_exception", False
            ):
                rank_zero_warn(
                    "`ModelCheckpoint(save_on_exception=True)` would save a run that its contract "
                    "has aborted: GateTrain cannot stop it from doing so."
                )

    def _epoch_saver(self, trainer: Trainer, run_dir: Path) -> EpochSaver | None:
        kind = self._options.checkpoint
        if kind == "lightning":
            return EpochCheckpoint()
        if kind == "off":
            return None
        saver = find_saver(trainer, run_dir)
        is_dry = getattr(trainer, "fast_dev_run", False)  # a PartitionCheckpoint saves nothing then
        return None if is_dry else EpochPartition(saver, run_dir)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin(trainer)

    def _begin(self, trainer: Trainer) -> tuple[GateRun, GateEpochs]:
        assert self.run_dir is not None
        restored = self._restored
        run = GateRun(
            trainer,
            self.contract,
            self._options,
            run_dir=self.run_dir,
            restored=restored,
            recovery=self.recovery,
        )
        self._run, self._restored = run, None
        elapsed_s = 0.0 if restored is None else restored["epoch_elapsed_s"]
        self._epochs = GateEpochs(
            trainer, run, self.contract, self._options, saver=self._saver, elapsed_s=elapsed_s
        )
        return run, self._epochs

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._epochs.begin()

    @override
    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.run.begin_batch(batch)

    @override
    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        self.run.add_loss(loss, accumulate=trainer.accumulate_grad_batches)

    @override
    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        self.run.before_step(optimizer, epoch=trainer.current_epoch)

    @override
    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self.run.end_batch(epoch=trainer.current_epoch)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._run is not None and not trainer.sanity_checking:
            progress = trainer.fit_loop.epoch_loop.batch_progress
            self._epochs.validated(closes_epoch=progress.is_last_batch)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._epochs.end()

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        run = self.run
        run.peers.settle()
        failures = self._epochs.failures()
        if failures:
            run.abort(run.write_failure(failures))
        status, reason = how_it_ended(trainer, run.stop_reason)
        run.finish(status, stop_reason=reason, exit_code=0)
        run.peers.close()
        self._run = None

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A sized loader without batches gets here without having begun to train.
        is_empty = trainer.num_training_batches == 0 and trainer.limit_train_batches != 0
        if self._run is None and is_empty:
            run, _ = self._begin(trainer)
            violation = run.session.exhausted(epoch=0, batches=0, planned=None, tokens=0)
            if violation is not None:
                run.abort(violation)

    @override
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        run, self._run = self._run, None
        if run is not None:
            run.finish("INTERRUPTED", stop_reason=None, exit_code=None)

    @property
    def run(self) -> GateRun:
        """The present fit.

        Raises:
            RuntimeError: If there is none.
        """
        if self._run is None:
            raise RuntimeError("`run` exists only while `Trainer.fit` trains.")
        return self._run

    # Checkpoints

    @override
    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self._run is None:
            return
        self._epochs.note(checkpoint)
        record = self._run.folder.record
        checkpoint[STATE_KEY] = {
            "run_id": record.run_id,
            "attempt": record.attempt,
            "epoch_elapsed_s": self._epochs.elapsed_s,
            "ranks": self._run.peers.gather(self._run.state_dict()),
        }

    @override
    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._restored = checkpoint.get(STATE_KEY)


def how_it_ended(trainer: Trainer, stop_reason: str | None) -> tuple[str, str]:
    """Return status and stop reason of a fit that has ended by itself.

    Args:
        trainer: Has just ended.
        stop_reason: "patience" or "target" if the contract has ended it.
    """
    if stop_reason is not None:
        return ("EARLY_STOP" if stop_reason == "patience" else "OK"), stop_reason
    if trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps:
        return "OK", "max_steps"
    return "OK", "external" if trainer.should_stop else "max_epochs"
