"""Lightning's fit loop, with epochs whose totals are those of all ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from typing_extensions import override

from lightning_elche.loops.checkpoint_state import with_agreed_progress
from lightning_elche.loops.epoch_loop import ElCheEpochLoop, agree_to_stop, strategy_of
from lightning_elche.loops.lightning_names import (
    DataLoaderIterDataFetcher,
    FitLoop,
    TrainingEpochLoop,
)
from lightning_elche.loops.logged_keys import agree_on_logged_keys

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

__all__ = ["ElCheFitLoop", "install_loops"]


def install_loops(trainer: Trainer) -> None:
    """Let the Trainer's own loop objects follow averaging events.

    Raises:
        RuntimeError: If something else has replaced the loops.
    """
    fit_loop = trainer.fit_loop
    for loop, stock, adapted in (
        (fit_loop, FitLoop, ElCheFitLoop),
        (fit_loop.epoch_loop, TrainingEpochLoop, ElCheEpochLoop),
    ):
        if type(loop) not in (stock, adapted):
            raise RuntimeError(
                f"`trainer.fit_loop` must consist of Lightning's own loops, got {type(loop)}. "
                "ElCheStrategy replaces them and cannot be combined with another replacement."
            )
        # The objects stay, with their progress, data sources and validation loop.
        loop.__class__ = adapted


class ElCheFitLoop(FitLoop):
    """Counts epochs; an epoch's totals are those of all ranks."""

    trainer: Trainer
    epoch_loop: ElCheEpochLoop

    @override
    def run(self) -> None:
        try:
            super().run()
        except BaseException as err:
            # First of all, since what handles the exception next may wait for the other ranks.
            run = strategy_of(self.trainer).run
            event = run.last_event(err, is_in_step=self.epoch_loop.is_in_step)
            if event is not None:
                self.epoch_loop.save_stopped(event)
            reason = run.last_words.reason(err, event)
            run.last_words.tell(reason)
            if reason is err:
                raise
            raise reason from err

    @override
    def setup_data(self) -> None:
        trainer, strategy = self.trainer, strategy_of(self.trainer)
        limit = trainer.limit_train_batches
        interval = getattr(trainer, "val_check_interval", None)  # not set if it is a duration
        try:
            # `process_dataloader` of the strategy takes the limits over if it deals the batches:
            # the loop would apply them to this rank's share, and refuses some without a length.
            super().setup_data()
        except BaseException:
            self._data_fetcher = (
                None  # the clean-up would ask it for its length, and hide the error
            )
            raise
        finally:
            trainer.limit_train_batches = limit
            if interval is not None:
                trainer.val_check_interval = interval
        if self._combined_loader is None:
            return
        self._refuse_unsupported_loaders()
        if not strategy.run.has_pool:
            return
        dealer = strategy.run.dealer
        self.max_batches = dealer.total
        if isinstance(interval, float):
            trainer.val_check_batch = max(1, int(dealer.available * interval))
        elif interval and trainer.check_val_every_n_epoch and interval > dealer.total:
            raise ValueError(
                f"`val_check_interval` must be at most {dealer.total} (the batches of an epoch "
                f"over all ranks), got {interval}. Lower it, or set `check_val_every_n_epoch=None`."
            )

    @override
    def state_dict(
        self, destination: dict[str, Any] | None = None, prefix: str = ""
    ) -> dict[str, Any]:
        strategy = strategy_of(self.trainer)
        state = super().state_dict(destination, prefix)
        return with_agreed_progress(
            state,
            global_step=strategy.global_step,
            epoch_batches=self.epoch_loop.epoch_batches,
            world_size=strategy.world_size,
            is_epoch_trained=self.epoch_loop.is_trained,
        )

    @override
    def on_advance_end(self) -> None:
        agree_on_logged_keys(self.trainer, strategy_of(self.trainer).run.rounds)
        super().on_advance_end()
        agree_to_stop(self.trainer)

    def _refuse_unsupported_loaders(self) -> None:
        assert self._combined_loader is not None
        num_loaders = len(self._combined_loader.flattened)
        if num_loaders != 1:
            raise ValueError(
                f"`train_dataloaders` must be one DataLoader, got {num_loaders}. Combine the "
                "datasets into one, for example with `torch.utils.data.StackDataset`."
            )
        if isinstance(self._data_fetcher, DataLoaderIterDataFetcher):
            raise ValueError(
                "`training_step` must take a batch, got `dataloader_iter`: batches that the step "
                "fetches by itself cannot be counted as trained."
            )
