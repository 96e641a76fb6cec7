"""Keeps a run well while a Trainer trains: stops it cleanly, heals it, tells how it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback
from lightning.pytorch.trainer.states import TrainerFn
from typing_extensions import override

from lightning_elche.callbacks.coordination_parts import HOOKS, Calls
from lightning_elche.callbacks.coordination_run import CoordinationRun
from lightning_elche.callbacks.idle_hooks import leave_out_idle_hooks
from lightning_elche.callbacks.stop_files import newest_stop
from lightning_elche.coordination.config import CoordinationConfig
from lightning_elche.coordination.registry.request import GrantsLeases
from lightning_elche.coordination.router import Subscriber

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer
    from torch import Tensor

    from lightning_elche.control.events import AveragingEvent

__all__ = ["Coordination"]

NOTHING: Calls = dict.fromkeys(HOOKS, ())


class Coordination(Callback):
    """Stops a run cleanly, lets it survive faults of one rank, and tells how it is.

    Without options: SIGTERM on any rank ends all of them with one checkpoint; files in the folder
    of the run halt it, pause it, or ask for a checkpoint; batches that do not fit into memory are
    skipped; a rank with numbers that are not finite is healed; too little disk or memory is told;
    the end of a SLURM job is kept; decisions and state are written to the folder of the run. What
    else there is takes an option.

    Args:
        config: Options, or a file of them such as `contracts/coordination-v1.yaml`. What a file
            leaves out is of the environment, else a default.
        registry: Decides whether the run may start; by default the one that `config` names.
        subscribers: Pairs of a kind of event, "*" for all, and a function that is called with the
            kind and the particulars, in whatever thread they are told in.

    Raises:
        ValueError: If an option is not valid.
        OSError: If the file cannot be read.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> from lightning_elche import Coordination, ElCheStrategy
        >>> told = []
        >>> coordination = Coordination(subscribers=[("anchor", lambda *event: told.append(event))])
        >>> trainer = Trainer(
        ...     strategy=ElCheStrategy(),
        ...     accelerator="cpu",
        ...     devices=2,
        ...     callbacks=[coordination],
        ...     logger=False,
        ... )
    """

    def __init__(
        self,
        config: str | Path | CoordinationConfig | None = None,
        *,
        registry: GrantsLeases | None = None,
        subscribers: Sequence[tuple[str, Subscriber]] = (),
    ) -> None:
        if isinstance(config, CoordinationConfig):
            self._config = config.completed(os.environ)
        else:
            self._config = CoordinationConfig.load(config, os.environ)
        self._registry = registry
        self._subscribers = tuple(subscribers)
        self._run: CoordinationRun | None = None
        self._calls = NOTHING
        self._beat: Callable[[], None] = _do_nothing

    @staticmethod
    def resume_path(root: str | Path) -> str | None:
        """Return the newest checkpoint that a stopped run has left, for `ckpt_path`.

        Args:
            root: Where to look, folders below included.

        Returns:
            `None` if there is none that can be loaded.
        """
        return newest_stop(root)

    @property
    def config(self) -> CoordinationConfig:
        """The options in force."""
        return self._config

    @property
    def run(self) -> CoordinationRun:
        """The present fit.

        Raises:
            RuntimeError: If there is none.
        """
        if self._run is None:
            raise RuntimeError("`run` exists only during `Trainer.fit`.")
        return self._run

    def subscribe(self, kind: str, fn: Subscriber) -> None:
        """Call a function for each event of a kind, from the next fit on.

        Args:
            kind: Of events, "*" for all.
            fn: Called with the kind and the particulars.
        """
        self._subscribers = (*self._subscribers, (kind, fn))

    # The begin and the end

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        leave_out_idle_hooks(self)
        if stage == TrainerFn.FITTING:
            self._run = CoordinationRun(
                trainer,
                self._config,
                registry=self._registry,
                subscribers=self._subscribers,
                environment=os.environ,
            )
            self._calls = self._run.start(pl_module, stage)
            self._beat = self._run.pulse.beat

    @override
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._close(pl_module, TrainerFn.FITTING, exception)

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._close(pl_module, stage)

    def _close(
        self, pl_module: LightningModule, stage: str, exception: BaseException | None = None
    ) -> None:
        run, self._run, self._calls = self._run, None, NOTHING
        self._beat = _do_nothing
        if run is not None:
            run.close(pl_module, stage, exception=exception)

    # Hooks that are handed on

    def _tell(self, hook: str, *args: object) -> None:
        for call in self._calls[hook]:
            call(*args)

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._tell("on_fit_start", trainer, pl_module)

    @override
    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._tell("on_sanity_check_start", trainer, pl_module)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.run.run()
        self._tell("on_train_start", trainer, pl_module)

    @override
    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        for call in self._calls["on_train_batch_start"]:
            call(trainer, pl_module, batch, batch_idx)

    @override
    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self._beat()
        for call in self._calls["on_train_batch_end"]:
            call(trainer, pl_module, outputs, batch, batch_idx)

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._tell("on_validation_start", trainer, pl_module)

    @override
    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._run is not None:
            self._run.pulse.touch()
        self._tell("on_validation_batch_end", trainer, pl_module, outputs, batch, batch_idx)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._tell("on_validation_end", trainer, pl_module)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._tell("on_train_epoch_end", trainer, pl_module)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._tell("on_train_end", trainer, pl_module)

    @override
    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._tell("on_save_checkpoint", trainer, pl_module, checkpoint)

    def on_average_end(self, event: AveragingEvent) -> None:
        """Called by ElCheStrategy on every rank."""
        self._tell("on_average_end", event)


def _do_nothing() -> None:
    """Stand in for what only a fit has."""
