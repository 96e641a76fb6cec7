"""What a rank goes back to when nothing in its memory is from before the damage."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_elche.callbacks.rollback_ending import saver_of
from lightning_elche.callbacks.rollback_tally import Tally
from lightning_elche.control.recovery import RecoveryPolicy
from lightning_elche.coordination.calls.task import Token
from lightning_elche.coordination.calls.worker import DeadlineWorker
from lightning_elche.exceptions import DeadlineExceeded
from lightning_elche.ops.tensor_state import join_state
from lightning_elche.partition.checkpoint_errors import CheckpointError
from lightning_elche.partition.fs import this_host
from lightning_elche.partition.read_checkpoint import Checkpoint, read_checkpoint
from lightning_elche.partition.read_root import choose_checkpoint

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

__all__ = ["DiskTier", "disk_tier_of"]

NOT_FOUND, LATE = -1.0, -2.0  # instead of a step


class DiskTier:
    """Restores checkpoints that a `PartitionCheckpoint` of the same Trainer has saved.

    Files are read and verified on another thread, within a deadline, and what comes late is never
    applied. All ranks make the same steps, and go back together or not at all.

    Args:
        trainer: Its fit is under way.
        root: The folder of the checkpoints.
        deadline_s: Seconds that reading may take on each rank; `None` for no limit.
        tally: Counts.

    Attributes:
        is_late: Whether a rank could not read the last one in time; equal on every rank.
    """

    def __init__(
        self, trainer: Trainer, root: Path, *, deadline_s: float | None, tally: Tally
    ) -> None:
        self._trainer = trainer
        self._root = root.absolute()
        self._deadline_s = deadline_s
        self._worker = DeadlineWorker()
        self._tally = tally
        self.is_late = False

    def restore(self, *, at_most: int) -> dict[str, Any] | None:
        """Go back to the newest checkpoint that is right, and return its state.

        Every rank calls this at the same point.

        Args:
            at_most: The latest `global_step` that may be gone back to; later ones may hold the
                damage.

        Returns:
            What the checkpoint holds; `None`, and nothing has changed, if there is none, or if a
            rank could not read it in time.
        """
        strategy, began = self._trainer.strategy, time.perf_counter()
        # The order on every rank: which one, whether all have it, whether one was late.
        self.is_late = False
        found = self._read(self._root, at_most) if self._trainer.is_global_zero else None
        path = strategy.broadcast(None if found is None else found[0])
        if path is not None and found is None:
            found = self._read(path, at_most)
        if strategy.reduce_boolean_decision(found is not None) and found is not None:
            return self._apply(found[1], began)
        self.is_late = strategy.reduce_boolean_decision(self.is_late, all=False)
        return None

    def restore_between_events(self, *, at_most: int) -> dict[str, Any] | None:
        """As `restore`, at an averaging event, where ranks cannot broadcast.

        Learning rates stay, since they follow the steps of all ranks.

        Args:
            at_most: As of `restore`; this rank's.
        """
        strategy: Any = self._trainer.strategy
        gather, began = strategy.run.rounds.gather, time.perf_counter()
        # The order on every rank: how far back, which one it has found.
        self.is_late = False
        found = self._read(self._root, int(min(gather(at_most))))
        own = NOT_FOUND if found is None else float(found[1].manifest.step)
        steps = gather(LATE if self.is_late else own)
        self.is_late = LATE in steps
        if found is None or len(set(steps)) > 1:
            return None
        rates = [group["lr"] for group in self._groups()]
        state = self._apply(found[1], began, is_of_all_ranks=False)
        for group, rate in zip(self._groups(), rates, strict=True):
            group["lr"] = rate
        return state

    def close(self) -> None:
        """Let go of threads."""
        self._worker.close(0.0)

    def _groups(self) -> list[dict[str, Any]]:
        return [group for one in self._trainer.optimizers for group in one.param_groups]

    def _apply(
        self, checkpoint: Checkpoint, began: float, *, is_of_all_ranks: bool = True
    ) -> dict[str, Any]:
        state = join_state(checkpoint.tree, checkpoint.groups)
        apply_weights(self._trainer, state)
        if is_of_all_ranks:
            apply_progress(self._trainer, state)
        self._tally.disk_restores += 1
        self._tally.restore_ms = 1000.0 * (time.perf_counter() - began)
        return state

    def _read(self, place: Path, at_most: int) -> tuple[Path, Checkpoint] | None:
        task = self._worker.submit(
            read_sound, place, self._root, at_most, timeout_s=self._deadline_s, name="restore"
        )
        try:
            return task.take()
        except DeadlineExceeded:
            self._tally.deadline_exceeded += 1
            self.is_late = True
        except (CheckpointError, OSError):
            pass  # the run ends, and says why
        return None


def disk_tier_of(trainer: Trainer, policy: RecoveryPolicy, tally: Tally) -> DiskTier | None:
    """Return what restores from the Trainer's `PartitionCheckpoint`, `None` if it has none.

    Args:
        trainer: About to train.
        policy: Has the deadline.
        tally: Counts.
    """
    saver = saver_of(trainer)
    if saver is None:
        return None
    return DiskTier(trainer, saver.dirpath, deadline_s=policy.read_deadline_s, tally=tally)


def read_sound(token: Token, place: Path, root: Path, at_most: int) -> tuple[Path, Checkpoint]:
    """Return a checkpoint that verifies: that at `place`, or the newest one if that is the root.

    Args:
        token: Whether to go on.
        place: Where to look.
        root: The folder of all.
        at_most: The latest step that counts.
    """
    fs = this_host().fs
    path = choose_checkpoint(fs, root, at_most=at_most).path if place == root else place
    token.check()
    return path, read_checkpoint(fs, path)


def apply_weights(trainer: Trainer, state: dict[str, Any]) -> None:
    """Give a running Trainer the parameters, optimizers and precision of a checkpoint.

    Args:
        trainer: Trains, with the parameters and optimizers that the state is of.
        state: As Lightning saves it.
    """
    trainer.strategy.load_model_state_dict(state, strict=trainer.lightning_module.strict_loading)
    trainer.strategy.load_optimizer_state_dict(state)
    precision = trainer.precision_plugin
    kind = type(precision).__qualname__
    if kind in state:
        precision.load_state_dict(state[kind])
    for parameter in trainer.lightning_module.parameters():
        parameter.grad = None


def apply_progress(trainer: Trainer, state: dict[str, Any]) -> None:
    """Give a running Trainer the schedules and rewindable callbacks of a checkpoint.

    They follow the steps of all ranks, or of the one that has saved, so that they only fit where
    all ranks make the same ones. The place in the data and the Trainer's counters stay.

    Args:
        trainer: As of `apply_weights`.
        state: As of `apply_weights`.
    """
    for config, own in zip(trainer.lr_scheduler_configs, state["lr_schedulers"], strict=True):
        config.scheduler.load_state_dict(own)
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]  # set by a connector
    for callback in callbacks:
        if getattr(callback, "is_rewindable", False) and callback.state_key in state["callbacks"]:
            callback.load_state_dict(state["callbacks"][callback.state_key])
