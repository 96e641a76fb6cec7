"""Lightning's training epoch loop, adapted to ranks that take different numbers of steps.

What is adapted and why:

- The stock epoch loop broadcasts a SIGTERM flag before every batch, which locks all ranks to the
  pace of the slowest.
- It ends, validates and counts steps by what one rank did; here all of this happens at averaging
  events, where ranks agree.
- A rank that has run out of data keeps joining events until the epoch is complete everywhere.
  Batches of the next epoch that it may train meanwhile are steps of the present one to Lightning.
"""

from __future__ import annotations

import logging
import math
import warnings
from typing import TYPE_CHECKING, Any

from lightning.pytorch.utilities import rank_zero_warn
from typing_extensions import override

from lightning_elche.control.requests import StopCause
from lightning_elche.control.steps import has_crossed
from lightning_elche.loops.lightning_names import (
    DataFetcher,
    TrainingEpochLoop,
    can_stop_early,
    epoch_of,
    set_received_sigterm,
    step_schedule,
)
from lightning_elche.loops.progress import show_epoch_end
from lightning_elche.loops.schedules import StepSchedules
from lightning_elche.loops.sitting_out import events_sat_out
from lightning_elche.typing import NeedsAlignment, SubscribesToAverages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightning.pytorch import Trainer

    from lightning_elche.control.events import AveragingEvent
    from lightning_elche.strategies.elche import ElCheStrategy

__all__ = ["ElCheEpochLoop", "agree_to_stop", "strategy_of"]

log = logging.getLogger(__name__)

STARTS_OVER = (
    "The checkpoint was saved within epoch {} and does not say which batches were trained, since "
    "another strategy or a rank alone has written it, or since each rank has a stream of its own: "
    "the epoch starts over."
)


class ElCheEpochLoop(TrainingEpochLoop):
    """Trains this rank's part of an epoch and meets the other ranks at averaging events."""

    trainer: Trainer
    _event: AveragingEvent | None = None
    _previous_batches = 0  # of all ranks in this epoch, at the event before the last
    _previous_step = 0  # of all ranks, at the last event where they were aligned
    _epoch_first_step = 0
    _is_mid_round = False
    _is_validation_time = False

    @property
    @override
    def global_step(self) -> int:
        """Optimizer steps of all ranks at the last averaging event."""
        return strategy_of(self.trainer).global_step

    @property
    @override
    def done(self) -> bool:
        # Between two events ranks do not know of each other, so that none may leave alone.
        return not self._is_mid_round and super().done

    @override
    def _num_ready_batches_reached(self) -> bool:
        # Not by count: among this rank's batches may be some of the next epoch.
        return self.batch_progress.is_last_batch

    @override
    def _broadcast_sigterm_tensor(self) -> None:
        """Do nothing: signals are agreed on at averaging events."""

    @property
    def epoch_batches(self) -> int:
        """Batches of all ranks in this epoch at the last averaging event."""
        strategy = strategy_of(self.trainer)
        return strategy.run.rounds.epoch_batches if strategy.is_running else 0

    @property
    def is_trained(self) -> bool:
        """Whether nothing was left of this epoch's data at its last event, if there was one."""
        return self._event is None or strategy_of(self.trainer).is_epoch_trained(self._event)

    @property
    def is_in_step(self) -> bool:
        """Whether a batch was fetched and is not trained yet."""
        current = self.batch_progress.current
        return current.ready > current.completed

    @override
    def reset(self) -> None:
        is_within = self.restarting and not self.batch_progress.is_last_batch
        was_last = self.restarted_on_train_batch_end and self.batch_progress.is_last_batch
        with warnings.catch_warnings():
            # Which samples are left is known here, whatever the DataLoader can do.
            warnings.filterwarnings("ignore", message="You're resuming from a checkpoint that")
            super().reset()
        if was_last:
            self.batch_progress.reset_on_run()  # the fit loop has gone on to the next epoch
        if not is_within:
            return
        self.batch_progress.current.reset()  # it holds an even share, see `state_dict`
        dealer = strategy_of(self.trainer).run.dealer
        if dealer.restored_steps(epoch_of(self.trainer)) is None:
            rank_zero_warn(STARTS_OVER.format(self.trainer.current_epoch))

    @override
    def on_run_start(self, data_fetcher: DataFetcher) -> None:
        super().on_run_start(data_fetcher)
        run, epoch = strategy_of(self.trainer).run, epoch_of(self.trainer)
        if run.has_pool and not run.dealer.is_open(epoch):
            iter(data_fetcher)  # the present iterator was made before the checkpoint was loaded
        run.begin_epoch(epoch)
        self._event = None
        self._is_mid_round = False
        self._previous_step = self.global_step
        ahead = run.rounds.epoch_batches  # of this epoch, trained before it began
        steps = run.dealer.restored_steps(epoch)
        self._previous_batches = 0 if steps is None else ahead
        self._epoch_first_step = self.global_step - (ahead if steps is None else steps)
        self._schedules = StepSchedules(
            self.trainer, position=self.global_step - self._epoch_first_step
        )

    @override
    def run(self, data_fetcher: DataFetcher) -> None:
        self.reset()
        self.on_run_start(data_fetcher)
        while not self.done:
            try:
                self.advance(data_fetcher)
                self.on_advance_end(data_fetcher)
            except StopIteration:  # noqa: PERF203  # as in the stock loop
                # No batch at all, or the user's `on_train_batch_start` ended the epoch.
                self._drain(data_fetcher)
                break
            finally:
                self.on_iteration_done()
        strategy_of(self.trainer).close_epoch()

    @override
    def advance(self, data_fetcher: DataFetcher) -> None:
        run = strategy_of(self.trainer).run
        self._is_mid_round = True
        run.begin_step()
        before = super().global_step  # of this rank
        super().advance(data_fetcher)
        steps = super().global_step - before
        run.end_step(is_optimizer_step=not self._should_accumulate(), optimizer_steps=steps)

    @override
    def on_advance_end(self, data_fetcher: DataFetcher) -> None:
        run = strategy_of(self.trainer).run
        is_drained = run.is_drained(is_last_batch=self.batch_progress.is_last_batch)
        event = run.meet_if_due(is_drained=is_drained, **self._wishes())
        if event is not None:
            self._act_on(event, data_fetcher, is_drained=is_drained)
        self._batches_that_stepped = self.global_step + run.rounds.window.optimizer_steps
        if self.batch_progress.is_last_batch:
            self._drain(data_fetcher)
        for event in events_sat_out(strategy_of(self.trainer), self._wishes, self._is_epoch_over):
            self._act_on(event, data_fetcher, is_drained=False)

    def _drain(self, data_fetcher: DataFetcher) -> None:
        """Join the remaining events of the epoch, without data."""
        while not self._is_epoch_over():
            event = strategy_of(self.trainer).run.wait_for_event(**self._wishes())
            self._act_on(event, data_fetcher, is_drained=True)

    def _wishes(self) -> dict[str, bool]:
        """Return what this rank asks of all, by argument of `Run.meet_if_due`."""
        strategy = strategy_of(self.trainer)
        if strategy.actions.is_time_up():
            self.trainer.should_stop = True
        is_due = strategy.is_global_zero and any(strategy.actions.due_by_clock())
        return {"should_stop": self.trainer.should_stop, "needs_alignment": is_due}

    def _is_epoch_over(self) -> bool:
        """Whether all ranks leave the epoch after the last event; equal on every rank."""
        event, trainer = self._event, self.trainer
        if event is None or self._is_mid_round:
            return False
        stops_early = trainer.should_stop and can_stop_early(trainer)
        return event.is_epoch_complete or self._is_out_of_steps() or stops_early

    def _is_out_of_steps(self) -> bool:
        return self.max_steps != -1 and self.global_step >= self.max_steps

    def _act_on(
        self, event: AveragingEvent, data_fetcher: DataFetcher, *, is_drained: bool
    ) -> None:
        """Do what can only be done where ranks agree, once they are aligned."""
        trainer = self.trainer
        self._previous_batches = self._event.epoch_batches if self._event is not None else 0
        self._take_notice(event)
        if not event.is_aligned:
            if not self._needs_alignment(event, data_fetcher):
                return
            run = strategy_of(trainer).run
            event = run.align(is_drained=is_drained, should_stop=trainer.should_stop)
            self._take_notice(event)
        self._is_mid_round = False
        # Order on every rank: the end of the run, weights, stop, validation, checkpoints, pause.
        strategy, before, now = strategy_of(trainer), self._previous_step, self.global_step
        strategy.actions.average_weights(before=before, now=now)
        self._previous_step = now
        if event.stop:
            set_received_sigterm(trainer)
            strategy.saver.save_stopped(trainer, event)
            raise strategy.run.last_words.farewell(event)
        by_clock = self._agreed_clock(event)
        self._is_validation_time = by_clock[0]
        trainer.should_stop = event.should_stop
        if event.is_epoch_complete:
            show_epoch_end(trainer, event.epoch_batches)
            self.batch_progress.is_last_batch = True  # though others of the next epoch may follow
            if self.is_trained:
                super().update_lr_schedulers("epoch", update_plateau_schedulers=False)
        validates = self._should_check_val_fx(data_fetcher)
        super().on_advance_end(data_fetcher)
        self._batches_that_stepped = self.global_step
        if validates:
            agree_to_stop(trainer)
        self._is_validation_time = False
        strategy.actions.save(before=before, now=now, by_clock=by_clock)
        strategy.act_on_requests(trainer, event)

    def _agreed_clock(self, event: AveragingEvent) -> Sequence[bool]:
        """Return what is due by the clock of rank 0, which reported whether anything is."""
        strategy = strategy_of(self.trainer)
        due = strategy.actions.due_by_clock()
        if not event.reports[0].needs_alignment:
            return [False] * len(due)
        return strategy.broadcast(due)

    def _take_notice(self, event: AveragingEvent) -> None:
        """Bring schedules to the new step count and tell the subscribers."""
        self._catch_up(event)
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]  # set by a connector
            if isinstance(callback, SubscribesToAverages):
                callback.on_average_end(event)

    def _catch_up(self, event: AveragingEvent) -> None:
        self._event = event
        own_steps = strategy_of(self.trainer).run.rounds.window.optimizer_steps  # since a snapshot
        self._step_schedules(self.global_step - self._epoch_first_step + own_steps)

    def save_stopped(self, event: AveragingEvent) -> None:
        """Do as the other ranks do after the event that a failure of this one has brought about."""
        try:
            self._catch_up(event)
            strategy_of(self.trainer).saver.save_stopped(self.trainer, event)
        except Exception:
            log.warning("The last checkpoint could not be saved.", exc_info=True)

    def _needs_alignment(self, event: AveragingEvent, data_fetcher: DataFetcher) -> bool:
        """Whether something follows for which all ranks must meet; equal on every rank."""
        actions = strategy_of(self.trainer).actions
        return (
            event.is_epoch_complete
            or event.should_stop
            or event.stop is not StopCause.NONE
            or event.pause
            or event.checkpoint
            or event.reports[0].needs_alignment
            or self._is_out_of_steps()
            or self._should_check_val_fx(data_fetcher)
            or actions.saves(before=self._previous_step, now=self.global_step)
            or any(
                callback.needs_alignment(event)
                for callback in self.trainer.callbacks  # type: ignore[attr-defined]
                if isinstance(callback, NeedsAlignment)
            )
        )

    @override
    def _should_check_val_fx(self, data_fetcher: DataFetcher) -> bool:
        event, trainer = self._event, self.trainer
        if event is None or not self._should_check_val_epoch():
            return False
        if trainer.should_stop and event.is_aligned and can_stop_early(trainer):
            return True
        if self._is_validation_time:
            return True
        every = trainer.val_check_batch
        if every is None:  # validations by the clock only
            return False
        if math.isinf(every):
            return event.is_epoch_complete
        earlier = 0
        if trainer.check_val_every_n_epoch is None:  # counted across epochs
            earlier = trainer.current_epoch * int(trainer.num_training_batches)
        before, now = self._previous_batches, event.epoch_batches
        return has_crossed(earlier + before, earlier + now, int(every))

    @override
    def update_lr_schedulers(self, interval: str, update_plateau_schedulers: bool) -> None:
        if update_plateau_schedulers:
            super().update_lr_schedulers(interval, update_plateau_schedulers)
        elif interval == "step" and not self._should_accumulate():  # "epoch": once it is over
            own_steps = strategy_of(self.trainer).run.rounds.window.optimizer_steps
            # The present step is not counted yet.
            self._step_schedules(self.global_step - self._epoch_first_step + own_steps + 1)

    def _step_schedules(self, position: int) -> None:
        """Bring schedules of interval "step" to `position`, in optimizer steps of the epoch."""
        if not self.trainer.lightning_module.automatic_optimization:
            return
        for scheduler in self._schedules.due(position):
            self.scheduler_progress.increment_ready()
            step_schedule(self.trainer, scheduler)
            self.scheduler_progress.increment_completed()

    @override
    def on_save_checkpoint(self) -> dict[str, Any]:
        epoch_steps = self.global_step - self._epoch_first_step
        state = strategy_of(self.trainer).checkpoint_state(epoch_steps=epoch_steps)
        return {**super().on_save_checkpoint(), "elche": state}

    @override
    def on_load_checkpoint(self, state_dict: dict[str, Any]) -> None:
        super().on_load_checkpoint(state_dict)
        strategy_of(self.trainer).load_state_dict(state_dict.get("elche"))


def strategy_of(trainer: Trainer) -> ElCheStrategy:
    """Return the strategy that has installed these loops."""
    strategy: Any = trainer.strategy
    return strategy  # type: ignore[no-any-return]  # only ElCheStrategy installs these loops


def agree_to_stop(trainer: Trainer) -> None:
    """Let a stop that one rank asked for, say in a validation hook, count on every rank."""
    trainer.should_stop = any(strategy_of(trainer).run.rounds.gather(trainer.should_stop))
