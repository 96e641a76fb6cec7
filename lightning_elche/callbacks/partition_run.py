"""What a fit does for its checkpoints: when they are due, what they say, where it goes on."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.utilities import rank_zero_warn

from lightning_elche.callbacks.partition_counts import SaveCounts
from lightning_elche.callbacks.partition_order import EpochPosition, Order
from lightning_elche.callbacks.partition_random import BatchSeeds, RandomMode
from lightning_elche.callbacks.partition_replay import PartitionReplay
from lightning_elche.callbacks.partition_replicas import ReplicaCheck
from lightning_elche.callbacks.partition_report import RestoreReport, report_of
from lightning_elche.callbacks.partition_saver import Saver
from lightning_elche.callbacks.replay_env import run_env
from lightning_elche.exceptions import RankFailed
from lightning_elche.loops.lightning_names import epoch_of
from lightning_elche.partition.errors import InvalidConfig, ReplayDivergence, ReplayError
from lightning_elche.partition.policy import CheckpointPolicy
from lightning_elche.partition.replay import ReplayConfig
from lightning_elche.partition.replicas import ReplicaConfig

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from lightning_elche.control.events import AveragingEvent
    from lightning_elche.partition.replay_lanes import NamedLanes
    from lightning_elche.strategies.checkpoint_io import PartitionCheckpointIO

__all__ = ["PartitionRun", "RunOptions"]

STEPS_BETWEEN_CLOCKS = 50  # after which several ranks ask rank 0 for the time


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of `PartitionCheckpoint` that a fit needs, and what it goes on from.

    Attributes:
        policy: When a checkpoint is made.
        replay: Whether fingerprints are recorded or verified.
        replicas: When replicas are compared.
        rng: What is done to generators of random numbers.
        run_id: Of the run, "" for a new one.
        base: Its seed.
        counts: What was saved so far.
    """

    policy: CheckpointPolicy
    replay: ReplayConfig
    replicas: ReplicaConfig
    rng: RandomMode
    run_id: str
    base: int
    counts: SaveCounts


class PartitionRun:
    """The checkpoints of one `fit`; every rank has one.

    Attributes:
        run_id: Of the run.
        saver: Saves.
        seeds: Of the batches.
        replay: Takes in fingerprints.
        report: What was resumed from.
        step: The step of the last point at which one could be saved.
        first_step: The step that the fit has begun with.
        is_between_steps: Whether the last batch has ended with an optimizer step.
    """

    def __init__(
        self, trainer: Trainer, io: PartitionCheckpointIO, root: Path, options: RunOptions
    ) -> None:
        broadcast = trainer.strategy.broadcast
        self.run_id = options.run_id or broadcast(uuid.uuid4().hex)
        self.replay = PartitionReplay()
        self.saver = Saver(trainer, io, root, counts=options.counts, replay=self.replay)
        self._replicas = ReplicaCheck(trainer, options.replicas, self.replay)
        self.seeds = BatchSeeds(options.rng, base=options.base)
        self.report: RestoreReport | None = None
        self.step = self.first_step = 0
        self.is_between_steps = True
        self._trainer, self._io, self._root, self._options = trainer, io, root, options
        self._segment = broadcast(uuid.uuid4().hex)
        self._order: Order | None = None
        self._position: EpochPosition | None = None
        self._restored: dict[str, Any] | None = None
        self._is_due = False
        self._sync_index = 0
        self._saved_at = time.monotonic()
        self.replay.begin(trainer, root, options.replay)
        self.replay.on_own_divergence = lambda: self.saver.set_aside(self._details())

    @property
    def is_dealt(self) -> bool:
        """Whether each rank steps on its own and ranks meet at averaging events."""
        strategy = self._trainer.strategy
        return self._trainer.world_size > 1 and getattr(strategy, "has_local_gradients", False)

    def repeatable(self, loader: object) -> object:
        """Return the training loader in an order that can be repeated."""
        if self.is_dealt:
            return loader  # a pool deals it, which has its own state
        if self._order is None:
            self._order = Order(
                self._trainer,
                base=self.seeds.base,
                seeds_loads=self._options.rng == "per_step",
                resumed=self._position,
            )
        return self._order.repeatable(loader)

    # State

    def state_dict(self) -> dict[str, Any]:
        """Return the state; every rank calls this where they are aligned."""
        return {
            "run_id": self.run_id,
            "random": self.seeds.state_dict(self._trainer),
            "loader": None if self._order is None else self._order.position,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state, before there are loaders."""
        self._restored = state
        self.run_id, self._position = state["run_id"], state["loader"]
        self.seeds.load_state_dict(state["random"], self._trainer)

    def resume(self, step: int) -> None:
        """Go on from a checkpoint of any kind."""
        loaded = self._io.last_loaded
        if loaded is not None:
            self._sync_index = loaded.manifest.sync_index
            self.saver.latest = loaded.path if loaded.path.parent == self._root else None
        self.replay.begin(self._trainer, self._root, self._options.replay, step)

    # Course of the fit

    def start(self) -> None:
        """Check that checkpoints can be written, and move away those of later steps."""
        trainer = self._trainer
        step = self.step = self.first_step = trainer.global_step
        if self.is_dealt and self._options.rng == "capture":
            raise InvalidConfig(
                "`rng` must be 'per_step' or 'off' where ranks train on their own, got 'capture'."
            )
        if isinstance(trainer.train_dataloader, (dict, list, tuple)):
            raise InvalidConfig(
                "`train_dataloader` must be one loader with PartitionCheckpoint, got several: each "
                "would need a position of its own. Combine the datasets instead."
            )
        if any(config.reduce_on_plateau for config in trainer.lr_scheduler_configs):
            self._warn_of_plateau()
        self.report = self._report()
        # Order on every rank: replicas, saver, rehearsal.
        self._replicas.open()
        self.saver.open()
        self.saver.rehearse(self._details())  # it makes the folder, too
        self._on_rank_zero(lambda: self._io.store_at(self._root).rewind(step))
        self.replay.start()
        self._saved_at = time.monotonic()

    def end_batch(self) -> None:
        """Save a checkpoint if the batch has made one due."""
        self.seeds.end_batch()
        self.saver.poll()
        step = self._trainer.global_step
        if self.is_dealt:
            return
        self.is_between_steps = step != self.step
        if self.is_between_steps:
            self._point(step)
            self._save_if_due(is_epoch_complete=self._trainer.is_last_batch)

    def end_average(self, event: AveragingEvent) -> None:
        """Save a checkpoint if this event has made one due, or one before it."""
        self._sync_index = event.index + 1
        self.seeds.note([report.batches for report in event.reports])
        self.saver.poll()
        if event.is_aligned and event.crossed_nodes:
            self._point(event.global_step, self._replicas.after_average(event))
            strategy: Any = self._trainer.strategy  # ElCheStrategy
            self._save_if_due(is_epoch_complete=strategy.is_epoch_trained(event))

    def is_due_at(self, step: int) -> bool:
        """Return whether a checkpoint is due at a step of all ranks; the same on each of them."""
        return self._is_due or self._options.policy.due(step, self.step)

    def end_epoch(self) -> None:
        """Save a checkpoint if the epoch has made one due, or its last step."""
        step, epochs = self._trainer.global_step, epoch_of(self._trainer)
        policy = self._options.policy
        self._is_due |= policy.due(step, step, epochs=epochs, last_epochs=epochs - 1)
        self._save_if_due(is_epoch_complete=False)

    def save(self, label: str | None = None, *, wait: bool = False) -> Path:
        """Save a checkpoint; every rank calls this, aligned."""
        self._saved_at = time.monotonic()
        if not self.is_dealt:
            self._replicas.before_checkpoint(step=self._trainer.global_step)
        return self.saver.save(label, self._details(), wait=wait)

    def close(self) -> None:
        """Wait for the last checkpoint, and end the threads."""
        self.replay.close()
        self._replicas.close()
        self.saver.close()

    def _point(self, step: int, taken: Sequence[NamedLanes] | None = None) -> None:
        # Order: replicas, replay, then checkpoint, so that a run that has diverged saves none.
        self._options.counts.points += 1
        error: ReplayDivergence | None = None
        try:
            self.replay.point(step=step, sync_index=self._sync_index, taken=taken)
        except ReplayDivergence as err:
            error = err
        self._end_if_diverged(error)
        elapsed_s = self._elapsed_s(step)
        self._is_due |= self._options.policy.due(step, self.step, elapsed_s=elapsed_s)
        self.step = step

    def _end_if_diverged(self, error: ReplayDivergence | None) -> None:
        """Raise if this rank or another one has diverged, once the state is set aside."""
        config, trainer = self._options.replay, self._trainer
        has_diverged = error is not None
        if config.mode == "verify" and config.on_divergence != "warn":
            # Of several ranks one may be alone with it: statistics of BatchNorm under DDP.
            has_diverged = trainer.strategy.reduce_boolean_decision(has_diverged, all=False)
        if has_diverged and config.on_divergence == "quarantine":
            self.saver.quarantine(self._details())
        if error is not None:
            raise error
        if has_diverged:
            raise ReplayError(f"replay of another rank diverged at step {trainer.global_step}")

    def _save_if_due(self, *, is_epoch_complete: bool) -> None:
        """Save, at the end of an epoch only once it was validated: gates and metrics come first."""
        if not self._is_due or is_epoch_complete:
            return
        self._is_due = False
        if self.saver.last_step != self._trainer.global_step:
            self.save()

    def _elapsed_s(self, step: int) -> float:
        """Return the seconds since the last checkpoint, by the clock of rank 0."""
        if self._options.policy.every_s is None:
            return 0.0
        elapsed_s = time.monotonic() - self._saved_at
        if self._trainer.world_size == 1:
            return elapsed_s
        if self.is_dealt or step // STEPS_BETWEEN_CLOCKS > self.step // STEPS_BETWEEN_CLOCKS:
            return self._trainer.strategy.broadcast(elapsed_s)
        return 0.0

    def _details(self) -> Mapping[str, Any]:
        trainer = self._trainer
        return {
            "segment": self.replay.segment or self._segment,
            "run_id": self.run_id,
            "sync_index": self._sync_index,
            "world": trainer.world_size,
            "env": run_env(trainer),
            "metrics": {name: float(value) for name, value in trainer.callback_metrics.items()},
        }

    def _report(self) -> RestoreReport | None:
        loaded = self._io.last_loaded
        if loaded is None:
            return None
        return report_of(
            loaded,
            model=self._trainer.lightning_module.state_dict(),
            env=run_env(self._trainer),
            is_exact=None if self._restored is None else self._is_exact(),
        )

    def _is_exact(self) -> bool:
        """Return whether the run goes on with the bits of one that was never stopped."""
        has_plateau = any(one.reduce_on_plateau for one in self._trainer.lr_scheduler_configs)
        has_workers = self._order is not None and self._order.has_workers and self._is_mid_epoch
        is_drawn = self._options.rng == "per_step"
        return is_drawn and not (self.is_dealt or has_plateau or has_workers)

    @property
    def _is_mid_epoch(self) -> bool:
        return self._position is not None and self._position["epoch"] == epoch_of(self._trainer)

    def _warn_of_plateau(self) -> None:
        if self._restored is not None:
            rank_zero_warn(
                "Lightning saves ReduceLROnPlateau before it is updated, and leaves out an update "
                "after a resume: the learning rate may differ from that of the run before."
            )

    def _on_rank_zero(self, function: Callable[[], object]) -> None:
        """Call a function on rank 0; if it fails there, raise on all ranks."""
        error: Exception | None = None
        if self._trainer.is_global_zero:
            try:
                function()
            except (OSError, RuntimeError, ValueError) as err:
                error = err
        has_failed = self._trainer.strategy.broadcast(error is not None)
        if error is not None:
            raise error
        if has_failed:
            raise RankFailed(0, "an error of its checkpoints")
