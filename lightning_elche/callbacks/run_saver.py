"""Saves what somebody has asked for, and the last checkpoint of a run as a step of its shutdown."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_elche.callbacks.partition_checkpoint import PartitionCheckpoint
from lightning_elche.callbacks.run_events import emit
from lightning_elche.callbacks.stop_files import hpc_path, requeue, requeued_job
from lightning_elche.control.requests import StopCause
from lightning_elche.coordination.schedule.measured import Measured
from lightning_elche.coordination.stopping.commands import remove_command
from lightning_elche.coordination.stopping.run_control import RunControl
from lightning_elche.coordination.stopping.shutdown import PRIORITIES, ShutdownPlan
from lightning_elche.coordination.stopping.watcher import CommandFiles
from lightning_elche.loops.solo import solo
from lightning_elche.loops.stopping import has_trained, tell_of_stop
from lightning_elche.ops.finite import read_together, totals
from lightning_elche.strategies.running import RunningStrategy

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

    from lightning_elche.control.events import AveragingEvent

__all__ = ["RunSaver"]

CHECKPOINT = "checkpoint"


class RunSaver:
    """Saves in the folder of the run, or with the `PartitionCheckpoint` of the Trainer.

    Args:
        trainer: Whose state is saved.
        control: What this rank was asked for.
        plan: What else is done at the end.
        folder: Of the run.
        files: Its command files, as far as this rank looks at them.
        times: Gets the seconds that saving takes.
        is_watched: Whether somebody else times and tells what is saved.

    Attributes:
        is_over: Whether the run has come to its end here.
        local: What to note in a checkpoint of this rank alone; `None` in others.
    """

    def __init__(
        self,
        trainer: Trainer,
        control: RunControl,
        plan: ShutdownPlan,
        *,
        folder: Path,
        files: CommandFiles,
        times: Measured,
        is_watched: bool = False,
    ) -> None:
        self._trainer, self._control, self._plan = trainer, control, plan
        self._folder, self._files, self._times = folder, files, times
        self._is_watched = is_watched
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]  # set by a connector
        savers = (callback for callback in callbacks if isinstance(callback, PartitionCheckpoint))
        self._partitioned = next(savers, None)
        self._job = requeued_job(trainer, control.config.requeue, os.environ)
        self._last_path = ""
        self.is_over = False
        self.local: dict[str, object] | None = None

    def save_stopped(self, trainer: Trainer, event: AveragingEvent) -> None:
        """As of `Saver`."""
        strategy, reason = trainer.strategy, self._control.reason
        if isinstance(strategy, RunningStrategy):
            reason = strategy.run.last_words.why(event)
        self.finish(event.stop, event.global_step, reason=reason, saves=has_trained(event))

    def save_requested(self, trainer: Trainer, event: AveragingEvent) -> None:
        """As of `Saver`."""
        del trainer
        self.save(event.global_step)

    def save(self, step: int) -> None:
        """Save a checkpoint that was asked for; every rank calls this, aligned."""
        served = self._files.checkpoint
        path = self._folder / f"requested-{step}.ckpt"
        self._write(path, step, label="requested", wait=False)
        if served is not None:
            remove_command(self._folder, served.name, served)

    def finish(self, cause: StopCause, step: int, *, reason: str, saves: bool = True) -> None:
        """Take all steps of the shutdown; every rank calls this, aligned.

        Args:
            cause: Why the run ends.
            step: Optimizer steps of all ranks.
            reason: Why, in words.
            saves: Whether there is anything to save.

        Raises:
            Exception: What saving has raised, once the other steps were taken.
        """
        self._last_path = ""
        self._control.has_met, self._control.agreed = True, (cause, reason)
        if saves:
            self._plan_save(partial(self._save_last, cause, step))
        emit("stop_agreed", cause=cause.name, reason=reason, step=step)
        errors = self._shut_down()
        if CHECKPOINT in errors:
            raise errors[CHECKPOINT]
        if self._last_path:
            tell_of_stop(step, cause, self._last_path)
        if cause is StopCause.REQUEUE and self._job and self._trainer.is_global_zero:
            requeue(self._job)

    def finish_alone(self, may_save: Callable[[], bool]) -> None:
        """Take all steps of the shutdown on this rank, since the ranks do not meet any more.

        Args:
            may_save: Returns whether this rank is the one that saves.
        """
        self._plan_save(partial(self._save_alone, may_save))
        self._shut_down()

    def finish_untrained(self) -> None:
        """Take the steps of the shutdown before anything was trained."""
        self._shut_down()

    def _plan_save(self, save: Callable[[], object]) -> None:
        left_s = self._left_s()
        self._plan.add(CHECKPOINT, save, PRIORITIES[CHECKPOINT], left_s, is_on_main=True)

    def _shut_down(self) -> dict[str, BaseException]:
        result = self._plan.run(self._left_s())
        self._plan.remove(CHECKPOINT)
        self.is_over = True
        emit("shutdown", rank=self._trainer.global_rank, steps=result.to_dict())
        for served in (self._files.halt, self._files.checkpoint):
            if served is not None:
                remove_command(self._folder, served.name, served)
        return dict(result.errors)

    def _left_s(self) -> float:
        control = self._control
        if control.budget is None:
            return control.config.grace_s
        return max(control.budget.remaining_s(control.clock()), 1e-3)

    def _save_last(self, cause: StopCause, step: int) -> None:
        folder = Path(self._control.config.checkpoint_dir or self._folder)
        if cause is StopCause.REQUEUE and self._job is not None:
            root = self._trainer.default_root_dir
            path = Path(self._trainer.strategy.broadcast(str(hpc_path(root))))
            self._write(path, step, label=None)
            return
        is_sound = cause is not StopCause.BREAKER or _is_finite(self._trainer.lightning_module)
        label = "stop" if is_sound else "nonfinite"
        self._write(folder / f"{label}-{step}.ckpt", step, label=label)

    def _save_alone(self, may_save: Callable[[], bool]) -> None:
        if not may_save():
            return
        rank, strategy = self._trainer.global_rank, self._trainer.strategy
        path = self._folder / f"solo-rank{rank}.ckpt"
        alone: AbstractContextManager[None] = solo(strategy)
        if isinstance(strategy, RunningStrategy):
            alone = strategy.solo()
        self.local = {"rank": rank, "world_size": self._trainer.world_size}
        try:
            with alone:
                self._write(path, self._trainer.global_step, label=None)
        finally:
            self.local = None

    def _write(self, path: Path, step: int, *, label: str | None, wait: bool = True) -> None:
        """Save under a path, or with a label where checkpoints are partitioned."""
        began = time.perf_counter()
        where = str(path)
        if self._partitioned is not None and label is not None:
            where = self._partitioned.checkpoint(label, wait=wait)
        else:
            self._trainer.save_checkpoint(path)
        seconds = time.perf_counter() - began
        self._last_path = where
        if not self._is_watched:
            self._times.add(seconds)
            emit("checkpoint_saved", path=where, step=step, seconds=round(seconds, 3))


def _is_finite(module: LightningModule) -> bool:
    """Return whether all values that a checkpoint holds of the module are finite; one pass."""
    values = totals(value.detach() for value in module.state_dict().values())
    return all(math.isfinite(value) for value in read_together(values))
