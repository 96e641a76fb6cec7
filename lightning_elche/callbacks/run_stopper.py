"""Ends a run within its time when somebody wants that: with one checkpoint, on all ranks."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch.distributed as dist
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_elche.callbacks.child_ranks import is_child_rank
from lightning_elche.callbacks.host_saves import state_bytes
from lightning_elche.callbacks.lockstep import Lockstep, call_last
from lightning_elche.callbacks.run_events import emit
from lightning_elche.callbacks.run_saver import RunSaver
from lightning_elche.callbacks.stop_files import saves_at_errors, signals_of
from lightning_elche.control.requests import StopCause
from lightning_elche.coordination.schedule.measured import Measured
from lightning_elche.coordination.stopping.run_control import RunControl
from lightning_elche.coordination.stopping.shutdown import ShutdownPlan
from lightning_elche.coordination.stopping.stop import (
    Moment,
    Progress,
    StopAction,
    StopConfig,
    estimated_save_s,
    next_action,
    plan_stop,
)
from lightning_elche.coordination.stopping.watcher import (
    CommandFiles,
    Deadline,
    DeadlineOf,
    Watchdog,
    Watcher,
)
from lightning_elche.distributed.control_store import ControlStore, default_store
from lightning_elche.exceptions import PeerLost, RankFailed
from lightning_elche.loops.stop_link import CLAIM_S, StopLink
from lightning_elche.loops.stopping import PlainSaver
from lightning_elche.strategies.running import RunningStrategy

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

__all__ = ["RunStopper"]

ABOUT_PEERS = (SIGTERMException, PeerLost, RankFailed)


class RunStopper:
    """Heeds signals, command files and a deadline, and stops, pauses and saves on all ranks.

    With ElCheStrategy ranks agree at averaging events; where all make every step together, at a
    step that rank 0 names. Its methods are hooks of Lightning.

    Args:
        config: How to stop.
        folder: Returns the folder of the run; called in `setup`, on every rank.
        deadline: Returns when to stop, in seconds of `time.monotonic`, `None` if not; and why.
        checkpoint_times: What saving a checkpoint has taken, as somebody else measures and tells
            it.
        flush: Called before a process is ended that hangs.

    Attributes:
        plan: What is done at the end; more steps may be added.
    """

    def __init__(
        self,
        config: StopConfig | None = None,
        *,
        folder: Callable[[], Path],
        deadline: DeadlineOf | None = None,
        checkpoint_times: Measured | None = None,
        flush: Callable[[], object] | None = None,
    ) -> None:
        self.config = config or StopConfig()
        self.plan = ShutdownPlan()
        self._folder_of, self._deadline, self._flush = folder, deadline, flush
        self._times = checkpoint_times or Measured()
        self._is_watched = checkpoint_times is not None
        self._watcher: Watcher | None = None
        self._lockstep: Lockstep | None = None
        self._control = RunControl()
        self._has_trained = self._is_child = False
        self._validation = Progress()

    @property
    def control(self) -> RunControl:
        """What this rank was asked for, in the present fit."""
        return self._control

    # The begin

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin to watch; every rank calls this at the same point."""
        del pl_module
        if stage != TrainerFn.FITTING:
            return
        self._trainer, strategy = trainer, trainer.strategy
        own = strategy.control if isinstance(strategy, RunningStrategy) else RunControl()
        self._control = control = own
        control.config = self.config
        self._has_trained, self._lockstep = False, None
        self._folder = self._folder_of()
        self._is_child = trainer.world_size > 1 and is_child_rank(trainer)
        control.signals.watch(signals_of(trainer, self.config))
        control.signals.keep_earlier()
        control.signals.install()
        self._files = CommandFiles(self._folder, control)
        self._saver = RunSaver(
            trainer,
            control,
            self.plan,
            folder=self._folder,
            files=self._files,
            times=self._times,
            is_watched=self._is_watched,
        )
        if names := saves_at_errors(trainer):
            rank_zero_warn(
                f"{', '.join(names)} saves when an error ends the run, and so does a stop: there "
                "would be two checkpoints. Leave it out, or set `save_on_exception=False`."
            )
        self._watch()

    def _watch(self) -> None:
        control = self._control
        checks: list[Callable[[], object]] = []
        if self._trainer.local_rank == 0:
            checks.append(self._files)
        if self._deadline is not None:
            checks.append(Deadline(self._deadline, control))
        rank = self._trainer.global_rank
        stacks = self._folder / f"stacks-rank{rank}.txt"
        checks.append(
            Watchdog(control, budget=self._begin_stop, stacks=lambda: stacks, flush=self._flush)
        )
        self._watcher = Watcher(
            checks,
            period_s=self.config.poll_s,
            heed=control.signals.heed,
            exchange=self._exchange if self._trainer.world_size > 1 else None,
        )
        self._watcher.start()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find out how the ranks can agree."""
        del pl_module
        strategy = trainer.strategy
        if isinstance(strategy, RunningStrategy) and strategy.is_running:
            strategy.saver = self._saver
            return
        store = None
        if trainer.world_size > 1:
            if not (dist.is_available() and dist.is_initialized()):
                rank_zero_warn(
                    f"{type(strategy).__name__} has no process group by which ranks could agree: "
                    "nothing but the end of the run is heeded."
                )
                return
            name = strategy.broadcast(uuid.uuid4().hex)
            store = ControlStore(default_store(), f"lockstep/{name}")
        self._lockstep = Lockstep(self._control, trainer.global_rank, store)

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Heed signals again, since the Trainer has installed its own handlers meanwhile."""
        del trainer, pl_module
        self._control.signals.install()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave now if a rank is to stop, since nothing was trained."""
        del pl_module
        self._control.signals.install()
        stops = self._control.stop is not StopCause.NONE
        if trainer.world_size > 1:
            stops = trainer.strategy.reduce_boolean_decision(stops, all=False)
        if stops:
            self._leave_untrained()
        self._has_trained = True

    # Step by step

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Stop, save or pause where all ranks make every step together."""
        del pl_module, outputs, batch
        lockstep = self._lockstep
        if lockstep is None:
            return
        lockstep.step()
        if not lockstep.is_wanted:
            return
        accumulated = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if accumulated or trainer.is_last_batch:
            call_last(trainer, partial(self._act, trainer, lockstep))

    def _act(self, trainer: Trainer, lockstep: Lockstep) -> None:
        if lockstep.stops:
            control = self._control
            self._saver.finish(control.stop, trainer.global_step, reason=control.reason)
            raise control.error or self._exit(control.stop)
        if lockstep.saves():
            self._saver.save(trainer.global_step)
        if lockstep.pauses:
            lockstep.wait_out_pause()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to measure how long a validation takes."""
        del pl_module
        is_check = trainer.sanity_checking
        numbers = trainer.num_sanity_val_batches if is_check else trainer.num_val_batches
        self._validation = Progress(sum(numbers))

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: object
    ) -> None:
        """Leave a validation that does not end in time."""
        del trainer, pl_module, args
        progress = self._validation
        progress.done += 1
        control = self._control
        if not control.stop:
            return
        self._begin_stop()
        assert control.budget is not None
        moment = Moment(
            now=control.clock(), has_trained=self._has_trained, left_s=progress.left_s()
        )
        action = next_action(control.budget, moment)
        if action is StopAction.LEAVE:
            self._leave_untrained()
        if action in (StopAction.SOLO, StopAction.EXIT):
            raise self._exit(control.stop)

    # The end

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Save alone if the ranks were to stop and did not meet."""
        del trainer, pl_module
        if self._watcher is None:
            return
        try:
            is_due = self._control.stop and self._has_trained and not self._saver.is_over
            if is_due and isinstance(exception, ABOUT_PEERS):
                self._begin_stop()
                self._saver.finish_alone(self._may_save_alone)
        finally:
            self._close()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """End the watch."""
        del trainer, pl_module
        if stage == TrainerFn.FITTING:
            self._close()

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Note in a checkpoint that only one rank has saved that it is one."""
        del trainer, pl_module
        if self._watcher is not None and self._saver.local is not None:
            checkpoint["elche_solo"] = self._saver.local

    def status(self) -> dict[str, Any]:
        """Return what was asked for; JSON-serialisable."""
        control = self._control
        left_s = None
        if control.budget is not None:
            left_s = round(control.budget.remaining_s(control.clock()), 1)
        cause, reason = control.agreed if control.agreed[0] else (control.stop, control.reason)
        return {
            "stop": cause.name,
            "reason": reason,
            "left_s": left_s,
            "is_paused": control.is_paused,
            "checkpoint_requested": control.checkpoint,
        }

    def _close(self) -> None:
        watcher, self._watcher = self._watcher, None
        if watcher is None:
            return
        watcher.close()
        self._control.signals.close()
        strategy = self._trainer.strategy
        if isinstance(strategy, RunningStrategy):
            strategy.saver = PlainSaver()
            if not strategy.is_running:  # else the run does so, once all have left it
                strategy.control.reset()

    def _begin_stop(self) -> None:
        """Keep the time of a stop, from the moment at which it was asked for."""
        control = self._control
        if control.budget is not None or control.requested_at is None:
            return
        times, num_bytes = self._times, state_bytes(self._trainer.lightning_module)
        control.budget = plan_stop(
            control.requested_at,
            grace_s=self.config.grace_s,
            save_s=estimated_save_s(times.p95 if times.count else None, num_bytes),
            has_trained=self._has_trained,
        )
        rank = self._trainer.global_rank
        emit("stop_requested", cause=control.stop.name, reason=control.reason, rank=rank)

    def _link(self) -> StopLink | None:
        strategy = self._trainer.strategy
        if isinstance(strategy, RunningStrategy) and strategy.is_running:
            return strategy.run.stop_link
        return None if self._lockstep is None else self._lockstep.link

    def _exchange(self) -> None:
        """Tell the other ranks and hear from them; in a thread of its own."""
        talks = self._lockstep or self._link()
        if talks is not None:
            talks.exchange()

    def _may_save_alone(self) -> bool:
        link, control = self._link(), self._control
        assert control.budget is not None
        left_s = max(0.0, control.budget.last_call - control.clock())
        return link is None or link.may_save_alone(left_s + CLAIM_S)

    def _leave_untrained(self) -> NoReturn:
        self._saver.finish_untrained()
        raise self._exit(self._control.stop or StopCause.API)

    def _exit(self, cause: StopCause) -> SIGTERMException:
        # Lightning's launcher kills the rank that it runs in when a child of it ends with an error.
        return SIGTERMException(0 if self._is_child else self.config.exit_code_of(cause))
