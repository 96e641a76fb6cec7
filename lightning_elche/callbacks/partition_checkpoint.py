"""Saves checkpoints that are right or refused, and resumes with the bits of the run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from typing_extensions import override

from lightning_elche.callbacks.idle_hooks import leave_out_idle_hooks
from lightning_elche.callbacks.partition_counts import SaveCounts
from lightning_elche.callbacks.partition_random import RandomMode
from lightning_elche.callbacks.partition_report import RestoreReport
from lightning_elche.callbacks.partition_run import PartitionRun, RunOptions
from lightning_elche.exceptions import ElCheError
from lightning_elche.partition.checkpoint_errors import CheckpointError, NoCheckpointFound
from lightning_elche.partition.errors import InvalidConfig
from lightning_elche.partition.fs import this_host
from lightning_elche.partition.manifest import optimizer_state_sha
from lightning_elche.partition.policy import CheckpointPolicy
from lightning_elche.partition.read_checkpoint import read_manifest
from lightning_elche.partition.replay import ReplayConfig, ReplayFingerprint
from lightning_elche.partition.replicas import ReplicaConfig
from lightning_elche.partition.store import CheckpointStore
from lightning_elche.partition.store_config import StoreConfig
from lightning_elche.partition.store_names import checkpoint_name
from lightning_elche.partition.worker import PartitionConfig
from lightning_elche.strategies.checkpoint_io import PartitionCheckpointIO

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer
    from torch import Tensor

    from lightning_elche.control.events import AveragingEvent

__all__ = ["PartitionCheckpoint"]


class PartitionCheckpoint(Checkpoint):
    """Saves checkpoints in the background that are complete and verified, or not there at all.

    `Trainer.fit(ckpt_path=dirpath)` resumes from the newest one that is right, also in the middle
    of an epoch. On one device and with DDP the run then has the bits of one that was never stopped.

    Args:
        dirpath: Folder of the checkpoints.
        policy: When one is made.
        replay: Whether fingerprints of the run are recorded or verified.
        partitions: How a state is split, and on how many threads it is written.
        store: How checkpoints are written, and which are kept.
        replicas: When it is checked that all ranks hold the same.
        rng: "per_step": seed all generators of random numbers at the start of each batch, from the
            seed of the run, the rank and the number of the batch. "capture": store their states;
            not exact if a validation follows. "off": leave them alone.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> from lightning_elche import PartitionCheckpoint
        >>> from lightning_elche.partition import CheckpointPolicy
        >>> saver = PartitionCheckpoint("runs/a", policy=CheckpointPolicy(every_steps=500))
        >>> trainer = Trainer(callbacks=[saver], logger=False)
    """

    def __init__(
        self,
        dirpath: str | Path,
        *,
        policy: CheckpointPolicy | None = None,
        replay: ReplayConfig | None = None,
        partitions: PartitionConfig | None = None,
        store: StoreConfig | None = None,
        replicas: ReplicaConfig | None = None,
        rng: RandomMode = "per_step",
    ) -> None:
        if rng not in ("per_step", "capture", "off"):
            raise InvalidConfig(f"`rng` must be one of 'per_step', 'capture', 'off', got {rng!r}.")
        self.dirpath = Path(dirpath)
        self._policy = policy or CheckpointPolicy()
        self._replay = replay or ReplayConfig()
        self._partitions = partitions or PartitionConfig()
        self._store = store or StoreConfig()
        self._replicas = replicas or ReplicaConfig()
        self._rng = rng
        self._counts = SaveCounts()
        self._io: PartitionCheckpointIO | None = None
        self._run: PartitionRun | None = None
        self._is_stepping = self._is_active = False

    # What is known of checkpoints

    @property
    def last_restore(self) -> RestoreReport | None:
        """What the last fit was resumed from, `None` if it was not."""
        return None if self._run is None else self._run.report

    @property
    def latest(self) -> Path | None:
        """The newest checkpoint of this run that is in its place."""
        return None if self._run is None else self._run.saver.latest

    @property
    def best_model_path(self) -> str:
        """The best checkpoint by the metric `monitor`, without one the newest; "" if none."""
        best = None if self._run is None else self._run.saver.best
        return "" if best is None else str(best)

    @property
    def recorded_replay(self) -> tuple[ReplayFingerprint, ...]:
        """The fingerprints of the last fit."""
        return () if self._run is None else self._run.replay.recorded

    def resume_path(self, root: str | Path | None = None) -> str | None:
        """Return the newest checkpoint that can be resumed from, `None` if there is none at all.

        Args:
            root: The folder, by default `dirpath`.

        Raises:
            NoValidCheckpoint: If there are some, and none is good.
        """
        if self._run is not None:
            self._run.saver.wait()
        try:
            store = CheckpointStore(Path(root or self.dirpath).absolute(), host=this_host())
            return str(store.choose().path)
        except NoCheckpointFound:
            return None

    def optimizer_state_sha(self, step: int, label: str | None = None) -> str | None:
        """Return the digest of the optimizers' states at a step, once they are on the disk.

        That of one optimizer is what `sha256sum` prints for its file; `None` without any.

        Args:
            step: Of the checkpoint.
            label: Of the checkpoint.

        Raises:
            NoCheckpointFound: If there is no such checkpoint.
        """
        if self._run is not None:
            self._run.saver.wait()
        path = self.dirpath.absolute() / checkpoint_name(step, label)
        return optimizer_state_sha(read_manifest(this_host().fs, path).groups)

    def metrics(self) -> dict[str, float]:
        """Return what was counted since this callback was made."""
        counts, run = self._counts, self._run
        return {
            "current_step": 0 if run is None else run.step,
            "num_rows": counts.num_rows,
            "num_bytes": counts.nbytes,
            "partition_count": counts.partitions,
            "steps_completed": counts.points,
            "rows_processed": counts.rows,
            "checkpoints_created": len(counts.seconds),
            "replay_fingerprints": len(self.recorded_replay),
            "checkpoint_p95_s": counts.p95_s,
        }

    def checkpoint(self, label: str | None = None, *, wait: bool = False) -> str:
        """Save a checkpoint now, and return its path; every rank calls this, aligned.

        Args:
            label: Keeps it from being removed: lower-case letters, digits, hyphens.
            wait: Return once it is in its place.

        Raises:
            RuntimeError: If no fit is under way.
            CheckpointError: If it cannot be saved; a subclass says why.
        """
        if self._run is None or not self._is_active:
            raise RuntimeError("`checkpoint` saves only during `Trainer.fit`.")
        return str(self._run.save(label, wait=wait))

    def wait(self) -> None:
        """Wait until the last checkpoint is in its place.

        Raises:
            CheckpointError: If it could not be written.
        """
        if self._run is not None:
            self._run.saver.wait()

    # Set-up and state

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        leave_out_idle_hooks(self)
        strategy = trainer.strategy
        self._io = io = self._install(trainer)
        if stage != TrainerFn.FITTING or getattr(trainer, "fast_dev_run", False):
            return
        before = self._run
        options = RunOptions(
            policy=self._policy,
            replay=self._replay,
            replicas=self._replicas,
            rng=self._rng,
            run_id=before.run_id if before else "",
            base=before.seeds.base if before else strategy.broadcast(torch.initial_seed()),
            counts=self._counts,
        )
        root = Path(strategy.broadcast(str(self.dirpath.absolute())))
        self._run = run = PartitionRun(trainer, io, root, options)
        stock = strategy.process_dataloader

        def process_dataloader(loader: object) -> object:
            processed = stock(loader)
            return run.repeatable(processed) if trainer.training else processed

        vars(strategy)["process_dataloader"] = process_dataloader  # until `teardown`
        self._is_active = True

    def _install(self, trainer: Trainer) -> PartitionCheckpointIO:
        io = trainer.strategy.checkpoint_io
        if self._io is None or io is not self._io:
            inner = io.inner if isinstance(io, PartitionCheckpointIO) else io
            io = PartitionCheckpointIO(inner, partitions=self._partitions, store=self._store)
            trainer.strategy.checkpoint_io = io
        io.agree_by(
            trainer.strategy.broadcast, rank=trainer.global_rank, world_size=trainer.world_size
        )
        io.last_loaded = None
        return io

    @override
    def state_dict(self) -> dict[str, Any]:
        return self._run.state_dict() if self._run is not None and self._is_active else {}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self._run is not None and self._is_active and state_dict:
            self._run.load_state_dict(state_dict)

    @override
    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self._run is not None and self._is_active:
            self._run.resume(checkpoint["global_step"])

    # Course of a fit

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._run is not None and self._is_active:
            self._run.start()

    @override
    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._run is not None and self._is_active:
            self._run.seeds.begin_batch(trainer)

    @override
    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        self._is_stepping = True

    @override
    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self._is_stepping = False
        if self._run is not None and self._is_active:
            self._run.end_batch()

    def on_average_end(self, event: AveragingEvent) -> None:
        """Save if that is due; called by ElCheStrategy on every rank."""
        if self._run is not None and self._is_active:
            self._run.end_average(event)

    def needs_alignment(self, event: AveragingEvent) -> bool:
        """Return whether a checkpoint is due by steps, which takes all ranks at the same point."""
        run = self._run
        return run is not None and self._is_active and run.is_due_at(event.global_step)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._run is not None and self._is_active:
            self._run.end_epoch()

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._run is not None and self._is_active:
            self._run.saver.settle()
            self._run.replay.finish()

    @override
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        run = self._run
        if run is None or not self._is_active:
            return
        try:
            try:
                if self._may_save(trainer, exception):
                    run.save("exception", wait=True)
            finally:
                self._close(trainer)
        except CheckpointError as err:
            if err is not exception:  # it must not hide what has ended the run
                rank_zero_warn(f"A checkpoint could not be saved after {exception!r}: {err}")

    def _may_save(self, trainer: Trainer, exception: BaseException) -> bool:
        """Return whether the state is one that a run could have been in between two steps."""
        run = self._run
        assert run is not None
        is_open = not run.is_between_steps  # gradients that are not stored
        is_new = trainer.global_step > max(run.saver.saved_step, run.first_step)
        is_own = isinstance(exception, ElCheError)
        is_alone = trainer.training and trainer.world_size == 1
        return is_alone and is_new and not (is_own or is_open or self._is_stepping)

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self._is_active:
            self._close(trainer)

    def _close(self, trainer: Trainer) -> None:
        self._is_active = False
        vars(trainer.strategy).pop("process_dataloader", None)
        assert self._run is not None
        self._run.close()
