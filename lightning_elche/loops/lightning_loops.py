"""Lightning's training loops, adapted to ranks that take different numbers of steps.

The only file that touches names that Lightning keeps private; `tests/loops/test_lightning_names.py`
fails when one of them changes. What is adapted and why:

- The stock epoch loop broadcasts a SIGTERM flag before every batch, which locks all ranks to the
  pace of the slowest.
- It ends, validates and counts steps by what one rank did; here all of this happens at averaging
  events, where ranks agree.
- A rank that has run out of data keeps joining events until the epoch is complete everywhere.
  Batches of the next epoch that it may train meanwhile are steps of the present one to Lightning.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loops.fetchers import _DataFetcher, _DataLoaderIterDataFetcher
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.trainer import call
from lightning.pytorch.utilities.exceptions import SIGTERMException
from typing_extensions import override

from lightning_elche.control.steps import has_crossed
from lightning_elche.loops.progress import show_epoch_end
from lightning_elche.loops.schedules import StepSchedules
from lightning_elche.typing import SubscribesToAverages

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from lightning.pytorch.callbacks import ModelCheckpoint

    from lightning_elche.control.events import AveragingEvent
    from lightning_elche.strategies.elche import ElCheStrategy

__all__ = [
    "ElCheEpochLoop",
    "ElCheFitLoop",
    "install_loops",
    "keep_user_samplers",
    "saves_at_steps",
    "set_received_sigterm",
    "validates_by_time",
]


def install_loops(trainer: Trainer) -> None:
    """Let the Trainer's own loop objects follow averaging events.

    Raises:
        RuntimeError: If something else has replaced the loops.
    """
    fit_loop = trainer.fit_loop
    for loop, stock, adapted in (
        (fit_loop, _FitLoop, ElCheFitLoop),
        (fit_loop.epoch_loop, _TrainingEpochLoop, ElCheEpochLoop),
    ):
        if type(loop) not in (stock, adapted):
            raise RuntimeError(
                f"`trainer.fit_loop` must consist of Lightning's own loops, got {type(loop)}. "
                "ElCheStrategy replaces them and cannot be combined with another replacement."
            )
        # The objects stay, with their progress, data sources and validation loop.
        loop.__class__ = adapted


def keep_user_samplers(trainer: Trainer) -> None:
    """Stop Lightning from replacing samplers; a single device needs no distributed one."""
    trainer._accelerator_connector.use_distributed_sampler = False


def set_received_sigterm(trainer: Trainer) -> None:
    """Make `trainer.received_sigterm` true."""
    trainer._signal_connector.received_sigterm = True


def saves_at_steps(callback: ModelCheckpoint) -> bool:
    """Return whether `callback` may save between two epochs or validations."""
    return callback._every_n_train_steps > 0 or callback._train_time_interval is not None


def validates_by_time(trainer: Trainer) -> bool:
    """Return whether `val_check_interval` is a duration, as Lightning allows from 2.6 on."""
    return getattr(trainer, "_val_check_time_interval", None) is not None


class ElCheFitLoop(_FitLoop):
    """Counts epochs; an epoch's totals are those of all ranks."""

    trainer: Trainer

    @override
    def run(self) -> None:
        try:
            super().run()
        except BaseException as err:
            # First of all, since what handles the exception next may wait for the other ranks.
            _strategy(self.trainer).run.tell_failure(err)
            raise

    @override
    def setup_data(self) -> None:
        trainer, strategy = self.trainer, _strategy(self.trainer)
        limit, interval = trainer.limit_train_batches, trainer.val_check_interval
        try:
            # `process_dataloader` of the strategy takes the limits over if it deals the batches:
            # the loop would apply them to this rank's share, and refuses some without a length.
            super().setup_data()
        finally:
            trainer.limit_train_batches, trainer.val_check_interval = limit, interval
        if self._combined_loader is None:
            return
        self._refuse_unsupported_loaders()
        if not strategy.run.has_pool:
            return
        dealer = strategy.run.dealer
        self.max_batches = dealer.total
        if isinstance(interval, float):
            trainer.val_check_batch = max(1, int(dealer.available * interval))
        elif trainer.check_val_every_n_epoch is not None and interval > dealer.total:
            raise ValueError(
                f"`val_check_interval` must be at most {dealer.total} (the batches of an epoch "
                f"over all ranks), got {interval}. Lower it, or set `check_val_every_n_epoch=None`."
            )

    @override
    def on_advance_start(self) -> None:
        if self.restarted_mid_epoch:
            raise ValueError(
                "`ckpt_path` must be a checkpoint from the end of an epoch, got one from within an "
                "epoch: which samples were already seen is not in it. Save with "
                "`ModelCheckpoint(save_on_train_epoch_end=True)`."
            )
        super().on_advance_start()

    @override
    def on_advance_end(self) -> None:
        super().on_advance_end()
        _agree_to_stop(self.trainer)

    def _refuse_unsupported_loaders(self) -> None:
        assert self._combined_loader is not None
        num_loaders = len(self._combined_loader.flattened)
        if num_loaders != 1:
            raise ValueError(
                f"`train_dataloaders` must be one DataLoader, got {num_loaders}. Combine the "
                "datasets into one, for example with `torch.utils.data.StackDataset`."
            )
        if isinstance(self._data_fetcher, _DataLoaderIterDataFetcher):
            raise ValueError(
                "`training_step` must take a batch, got `dataloader_iter`: batches that the step "
                "fetches by itself cannot be counted as trained."
            )


class ElCheEpochLoop(_TrainingEpochLoop):
    """Trains this rank's part of an epoch and meets the other ranks at averaging events."""

    trainer: Trainer
    _event: AveragingEvent | None = None
    _previous_batches = 0  # of all ranks in this epoch, at the event before the last
    _epoch_first_step = 0
    _is_mid_round = False

    @property
    @override
    def global_step(self) -> int:
        """Optimizer steps of all ranks at the last averaging event."""
        return _strategy(self.trainer).global_step

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

    @override
    def on_run_start(self, data_fetcher: _DataFetcher) -> None:
        super().on_run_start(data_fetcher)
        progress: Any = self.trainer.fit_loop.epoch_progress.current
        run = _strategy(self.trainer).run
        run.begin_epoch(progress.processed)
        self._event = None
        self._previous_batches = 0
        ahead = run.rounds.epoch_batches  # of this epoch, trained before it began
        self._epoch_first_step = self.global_step - ahead
        self._schedules = StepSchedules(self.trainer, ahead=ahead)

    @override
    def run(self, data_fetcher: _DataFetcher) -> None:
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
        _strategy(self.trainer).close_epoch()

    @override
    def advance(self, data_fetcher: _DataFetcher) -> None:
        run = _strategy(self.trainer).run
        self._is_mid_round = True
        run.begin_step()
        super().advance(data_fetcher)
        run.end_step(is_optimizer_step=not self._should_accumulate())

    @override
    def on_advance_end(self, data_fetcher: _DataFetcher) -> None:
        run, should_stop = _strategy(self.trainer).run, self.trainer.should_stop
        is_drained = run.is_drained(is_last_batch=self.batch_progress.is_last_batch)
        event = run.meet_if_due(is_drained=is_drained, should_stop=should_stop)
        if event is not None:
            self._act_on(event, data_fetcher, is_drained=is_drained)
        self._batches_that_stepped = self.global_step + run.rounds.window.optimizer_steps
        if self.batch_progress.is_last_batch:
            self._drain(data_fetcher)

    def _drain(self, data_fetcher: _DataFetcher) -> None:
        """Join the remaining events of the epoch, without data."""
        while not self._is_epoch_over():
            run, should_stop = _strategy(self.trainer).run, self.trainer.should_stop
            event = run.wait_for_event(should_stop=should_stop)
            self._act_on(event, data_fetcher, is_drained=True)

    def _is_epoch_over(self) -> bool:
        """Whether all ranks leave the epoch after the last event; equal on every rank."""
        event, trainer = self._event, self.trainer
        if event is None or self._is_mid_round:
            return False
        stops_early = trainer.should_stop and trainer.fit_loop._can_stop_early
        return event.is_epoch_complete or self._is_out_of_steps() or stops_early

    def _is_out_of_steps(self) -> bool:
        return self.max_steps != -1 and self.global_step >= self.max_steps

    def _act_on(
        self, event: AveragingEvent, data_fetcher: _DataFetcher, *, is_drained: bool
    ) -> None:
        """Do what can only be done where ranks agree, once they are aligned."""
        trainer = self.trainer
        self._previous_batches = self._event.epoch_batches if self._event is not None else 0
        self._take_notice(event)
        if not event.is_aligned:
            if not self._needs_alignment(event, data_fetcher):
                return
            run = _strategy(trainer).run
            event = run.align(is_drained=is_drained, should_stop=trainer.should_stop)
            self._take_notice(event)
        self._is_mid_round = False
        # Order on every rank: signals, stop, validation.
        if event.has_signal:
            set_received_sigterm(trainer)
            raise SIGTERMException
        trainer.should_stop = event.should_stop
        if event.is_epoch_complete:
            show_epoch_end(trainer, event.epoch_batches)
            if not self.batch_progress.is_last_batch:  # since others of the next epoch follow
                self.batch_progress.is_last_batch = True
                self.update_lr_schedulers("epoch", update_plateau_schedulers=False)
        validates = self._should_check_val_fx(data_fetcher)
        super().on_advance_end(data_fetcher)
        self._batches_that_stepped = self.global_step
        if validates:
            _agree_to_stop(trainer)

    def _take_notice(self, event: AveragingEvent) -> None:
        """Bring schedules to the new step count and tell the subscribers."""
        self._event = event
        own_steps = _strategy(self.trainer).run.rounds.window.optimizer_steps  # since a snapshot
        self._step_schedules(self.global_step - self._epoch_first_step + own_steps)
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]  # set by a connector
            if isinstance(callback, SubscribesToAverages):
                callback.on_average_end(event)

    def _needs_alignment(self, event: AveragingEvent, data_fetcher: _DataFetcher) -> bool:
        """Whether something follows for which all ranks must meet; equal on every rank."""
        ends = event.is_epoch_complete or event.should_stop or event.has_signal
        return ends or self._is_out_of_steps() or self._should_check_val_fx(data_fetcher)

    @override
    def _should_check_val_fx(self, data_fetcher: _DataFetcher) -> bool:
        event, trainer = self._event, self.trainer
        if event is None or not self._should_check_val_epoch():
            return False
        if trainer.should_stop and event.is_aligned and trainer.fit_loop._can_stop_early:
            return True
        every = trainer.val_check_batch
        if every is None or math.isinf(every):
            return event.is_epoch_complete
        earlier = 0
        if trainer.check_val_every_n_epoch is None:  # counted across epochs
            earlier = trainer.current_epoch * int(trainer.num_training_batches)
        before, now = self._previous_batches, event.epoch_batches
        return has_crossed(earlier + before, earlier + now, int(every))

    @override
    def update_lr_schedulers(self, interval: str, update_plateau_schedulers: bool) -> None:
        if interval != "step" or update_plateau_schedulers:
            super().update_lr_schedulers(interval, update_plateau_schedulers)
        elif not self._should_accumulate():
            own_steps = _strategy(self.trainer).run.rounds.window.optimizer_steps
            # The present step is not counted yet.
            self._step_schedules(self.global_step - self._epoch_first_step + own_steps + 1)

    def _step_schedules(self, position: int) -> None:
        """Bring schedules of interval "step" to `position`, in optimizer steps of the epoch."""
        if not self.trainer.lightning_module.automatic_optimization:
            return
        for scheduler in self._schedules.due(position):
            self.scheduler_progress.increment_ready()
            call._call_lightning_module_hook(self.trainer, "lr_scheduler_step", scheduler, None)
            self.scheduler_progress.increment_completed()

    @override
    def on_save_checkpoint(self) -> dict[str, Any]:
        return {**super().on_save_checkpoint(), "elche": _strategy(self.trainer).run.state_dict()}

    @override
    def on_load_checkpoint(self, state_dict: dict[str, Any]) -> None:
        super().on_load_checkpoint(state_dict)
        if "elche" in state_dict:
            _strategy(self.trainer).load_state_dict(state_dict["elche"])


def _strategy(trainer: Trainer) -> ElCheStrategy:
    strategy: Any = trainer.strategy
    return strategy  # type: ignore[no-any-return]  # only ElCheStrategy installs these loops


def _agree_to_stop(trainer: Trainer) -> None:
    """Let a stop that one rank asked for, say in a validation hook, count on every rank."""
    trainer.should_stop = _strategy(trainer).run.rounds.agree_any(trainer.should_stop)
