"""Saves the checkpoints of a fit: copies on the thread that trains, writes on another."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.utilities import rank_zero_warn

from lightning_elche.callbacks.partition_counts import SaveCounts
from lightning_elche.callbacks.partition_told import ToldFailure
from lightning_elche.callbacks.run_events import emit
from lightning_elche.distributed.rank_executor import RankExecutor
from lightning_elche.exceptions import RankFailed
from lightning_elche.ops.tensor_state import names_of
from lightning_elche.partition.checkpoint_errors import CheckpointError
from lightning_elche.partition.errors import InvalidConfig
from lightning_elche.partition.retention import Entry, decide_fates, entry_of
from lightning_elche.partition.rml import num_rows
from lightning_elche.partition.store import Saved
from lightning_elche.partition.store_names import checkpoint_name
from lightning_elche.partition.store_writer import BackgroundWriter
from lightning_elche.strategies.checkpoint_io import PartitionCheckpointIO, SaveOptions
from lightning_elche.strategies.checkpoint_ranks import SharedSave

if TYPE_CHECKING:
    import torch
    from lightning.pytorch import Trainer

    from lightning_elche.callbacks.partition_replay import PartitionReplay

__all__ = ["Saver"]


@dataclass(frozen=True)
class _Done:
    saved: Saved
    seconds: float
    blocked_ms: float
    wait_ms: float


class Saver:
    """Saves the states of one `Trainer` into one folder.

    Args:
        trainer: The Trainer, whose strategy has the plugin.
        io: The plugin.
        root: The folder.
        counts: Are continued.
        replay: The record of fingerprints, which checkpoints keep.

    Attributes:
        latest: The newest checkpoint that is in its place.
        last_step: Step of the last one without a label, -1 without one.
        saved_step: Step of the last one with or without, -1 without any.
    """

    def __init__(
        self,
        trainer: Trainer,
        io: PartitionCheckpointIO,
        root: Path,
        *,
        counts: SaveCounts,
        replay: PartitionReplay,
    ) -> None:
        self._trainer = trainer
        self._io = io
        self._root = root
        self._counts = counts
        self._replay = replay
        self._writer: BackgroundWriter[_Done] = BackgroundWriter()
        self._entries: dict[str, Entry] = {}
        self._shared: SharedSave | None = None
        self._told: ToldFailure | None = None
        self._wait_ms = 0.0
        self.latest: Path | None = None
        self.last_step = self.saved_step = -1

    @property
    def best(self) -> Path | None:
        """The best checkpoint by the monitored metric; without one the latest."""
        config = self._io.store
        if config.monitor is None:
            return self.latest
        sign = 1.0 if config.mode == "min" else -1.0
        ranked = [
            (sign * entry.metric, -entry.sequence, entry.name)
            for entry in self._entries.values()
            if entry.metric is not None and entry.is_finite
        ]
        return self._root / min(ranked)[-1] if ranked else self.latest

    def open(self) -> None:
        """Let all ranks save together if they should; every rank calls this at the same point."""
        strategy: Any = self._trainer.strategy
        is_running = self._trainer.world_size > 1 and getattr(strategy, "is_running", False)
        config = self._io.partitions
        if self._trainer.world_size > 1 and not is_running:
            self._told = ToldFailure(self._trainer)
        if config.executor_kind(has_rank_executor=is_running) != "rank":
            return
        if not is_running:
            raise InvalidConfig(
                "`executor` must not be 'rank' without ElCheStrategy on several devices: else "
                "rank 0 writes alone. Leave it at 'auto'."
            )
        if any(worker.backend == "external" for worker in config.workers):
            raise InvalidConfig(
                "`executor` must be 'endpoint' with external workers and several ranks, got "
                f"{config.executor!r}. Rank 0 writes and sends all rows then."
            )
        self._shared = SharedSave(
            executor=RankExecutor(timeout_s=config.timeout_s),
            gather=strategy.run.rounds.gather,
            keeps_optimizers=strategy.keeps_optimizer_state,
        )

    def rehearse(self, details: Mapping[str, Any]) -> None:
        """Check that the present state can be stored; every rank calls this.

        Raises:
            CheckpointError: If not; a subclass says why.
        """
        options = SaveOptions(
            is_rehearsal=True,
            shared=self._shared,
            details=details,
            extra_bytes=sum(_future_bytes(one) for one in self._trainer.optimizers),
        )
        self._save(self._root / checkpoint_name(self._trainer.global_step), options)

    def save(self, label: str | None, details: Mapping[str, Any], *, wait: bool = False) -> Path:
        """Save the present state; every rank calls this, aligned.

        Args:
            label: Keeps the checkpoint from being removed.
            details: Fields of the `Snapshot`.
            wait: Return once it is in its place.

        Raises:
            CheckpointError: What went wrong with this one, or with the one before; a subclass
                says what.
        """
        began = time.perf_counter()
        self.settle()
        self._wait_ms = (time.perf_counter() - began) * 1000.0
        path = self._root / checkpoint_name(self._trainer.global_step, label)
        options = SaveOptions(
            submit=lambda write: self._submit(write, began),
            shared=self._shared,
            parameters=self._parameter_names(),
            details={
                **details,
                "parent": self.latest.name if self.latest else None,
                "replay": self._replay.lines_since_parent(),
            },
        )
        self._save(path, options)
        if self._told is not None:
            self._told.begin()
        self.saved_step = self._trainer.global_step
        if label is None:
            self.last_step = self.saved_step
        if wait or not self._io.store.async_write:
            self.settle()
        return path

    def quarantine(self, details: Mapping[str, Any]) -> None:
        """Write the present state to where nothing is resumed from.

        Args:
            details: Fields of the `Snapshot`.
        """
        self.settle()
        options = SaveOptions(
            details=details,
            parameters=self._parameter_names(),
            is_quarantined=True,
            shared=self._shared,
        )
        self._save(self._root / checkpoint_name(self._trainer.global_step), options)

    def set_aside(self, details: Mapping[str, Any]) -> None:
        """Write the model and the optimizers of this rank alone to where nothing is resumed from.

        Args:
            details: Fields of the `Snapshot`.
        """
        trainer, rank = self._trainer, self._trainer.global_rank
        state = {
            "state_dict": trainer.strategy.lightning_module_state_dict(),
            "optimizer_states": [one.state_dict() for one in trainer.optimizers],
            "global_step": trainer.global_step,
        }
        options = SaveOptions(
            details=details, parameters=self._parameter_names(), is_quarantined=True
        )
        self.wait()  # for the memory that a copy is made in
        name = checkpoint_name(trainer.global_step, f"rank{rank}")
        self._io.save_checkpoint(state, self._root / name, options)

    def poll(self) -> None:
        """Take note of a checkpoint that is in its place by now, and do not wait.

        Every rank calls this after each batch.

        Raises:
            CheckpointError: If it could not be written.
            RankFailed: If rank 0 of DDP could not write it, on the others.
        """
        if self._told is None:
            self._take(self._writer.poll)
        else:
            self._tell(self._told, self._writer.poll)
            self._told.check()

    def settle(self) -> None:
        """As `wait`; every rank calls this, and all ranks raise."""
        if self._told is None:
            self.wait()
        else:
            self._tell(self._told, self._writer.wait)
            self._told.raise_together()

    def wait(self) -> None:
        """Wait until the last checkpoint is in its place.

        Raises:
            CheckpointError: If it could not be written.
        """
        self._take(self._writer.wait)

    def close(self) -> None:
        """Wait, and end the thread."""
        try:
            self.wait()
        finally:
            self._writer.close()
            if self._shared is not None:
                self._shared.executor.close()

    def _parameter_names(self) -> list[list[str]]:
        """Return the names of the parameters of each optimizer."""
        known = {id(p): name for name, p in self._trainer.lightning_module.named_parameters()}
        return [names_of(_parameters(one), known) for one in self._trainer.optimizers]

    def _save(self, path: Path, options: SaveOptions) -> None:
        strategy, error = self._trainer.strategy, None
        try:
            self._trainer.save_checkpoint(path, weights_only=False, storage_options=options)
        except (OSError, RuntimeError, TypeError, ValueError) as err:
            error = err
        if self._trainer.world_size > 1 and not getattr(strategy, "is_running", False):
            # Only rank 0 can fail; the others wait at the end of `save_checkpoint` for it.
            if error is not None:
                strategy.barrier("Trainer.save_checkpoint")
            failed = strategy.broadcast(error is not None)
            if failed and error is None:
                raise RankFailed(0, "an error when it saved a checkpoint")
        if error is not None:
            raise error

    def _submit(self, write: Callable[[], Saved], began: float) -> None:
        wait_ms = self._wait_ms
        blocked_ms = (time.perf_counter() - began) * 1000.0 - wait_ms

        def job() -> _Done:
            self._replay.sync()
            saved = write()
            return _Done(saved, time.perf_counter() - began, blocked_ms, wait_ms)

        self._writer.submit(job)

    def _tell(self, told: ToldFailure, ask: Callable[[], _Done | None]) -> None:
        try:
            has_ended = self._take(ask)
        except CheckpointError as err:
            told.failed(err)
        else:
            if has_ended:
                told.succeeded()

    def _take(self, ask: Callable[[], _Done | None]) -> bool:
        """Return whether a checkpoint has come to its end."""
        try:
            done = ask()
        except CheckpointError as err:
            emit("checkpoint_failed", reason=str(err))
            if self._io.store.on_write_error == "raise":
                raise
            rank_zero_warn(f"A checkpoint could not be written, training goes on: {err}")
            return True
        if done is not None:
            self._note(done)
        return done is not None

    def _note(self, done: _Done) -> None:
        saved, counts = done.saved, self._counts
        manifest, name = saved.manifest, saved.path.name
        self.latest = saved.path
        self._entries[name] = entry_of(manifest, self._io.store.monitor)
        for evicted in saved.evicted:
            self._entries.pop(evicted, None)
        inside = [group for group in manifest.groups.values() if group.replicated]
        counts.num_rows = sum(num_rows(one.slot.nbytes) for g in inside for one in g.stored)
        counts.rows += counts.num_rows
        counts.nbytes = sum(record.bytes for record in manifest.files.values())
        counts.partitions = max(manifest.plan.partition_count, 1)
        counts.seconds.append(done.seconds)
        fates = decide_fates(self._entries.values(), self._io.store)
        retained = sum(not fate.is_removed for fate in fates)
        emit("checkpoint", path=str(saved.path), bytes=counts.nbytes, seconds=done.seconds)
        metrics = {
            "partition/blocked_ms": done.blocked_ms,
            "partition/checkpoint_ms": done.seconds * 1000.0,
            "partition/wait_ms": done.wait_ms,
            "partition/bytes": float(counts.nbytes),
            "partition/retained": float(retained),
            **(self._replay.metrics() if self._replay.is_on else {}),
        }
        for logger in self._trainer.loggers:
            logger.log_metrics(metrics, step=manifest.step)


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _future_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Return what the state of an optimizer will grow by, as far as its options tell."""
    if optimizer.state:
        return 0
    copies = 2 if "betas" in optimizer.defaults else int(bool(optimizer.defaults.get("momentum")))
    return copies * sum(parameter.nbytes for parameter in _parameters(optimizer))
