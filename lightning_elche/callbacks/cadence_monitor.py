"""Shows, logs and records what each rank's time is spent on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback
from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

from lightning_elche.callbacks.cadence_monitor_metrics import metrics_of
from lightning_elche.callbacks.idle_hooks import leave_out_idle_hooks
from lightning_elche.callbacks.run_folder import run_folder
from lightning_elche.callbacks.timeline_log import attach, release
from lightning_elche.callbacks.timeline_probe import RankProbe
from lightning_elche.callbacks.timeline_report import ReportTarget
from lightning_elche.strategies.elche import ElCheStrategy

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import ProgressBar

    from lightning_elche.control.events import AveragingEvent
    from lightning_elche.timeline.events import EventLog

__all__ = ["CadenceMonitor"]

NO_AVERAGES = (
    "CadenceMonitor: this fit has no averaging events, so that nothing is logged at them and no "
    "rank's waiting is known; its timeline holds steps, data, validation and checkpoints."
)


class CadenceMonitor(Callback):
    """Logs the `elche/*` metrics at averaging events, and records where each rank's time goes.

    Logging is done on rank zero from what ranks exchange anyway. Each rank writes an event log to
    `elche/events` in the folder of the run, which `elche timeline` reads. The progress bar gets
    two fields: the anchor and the part of the ranks' time spent waiting.

    Args:
        every_n_averages: Log at every n-th averaging event.
        per_rank: Log share, steps, step time, and parts of waiting and input of each rank as well.
        events: Write event logs.
        detail_steps: Record the begin of this many steps of each window in the event log; else
            only their sum and how it is distributed.
        stall_ms: A wait for data of at least this many milliseconds is recorded by itself.
        progress_bar: Show the two fields in the progress bar.
        report: At the end of training write a report of the run to this file: a page if it ends
            with .html, a picture if with .png, for which the extra `plot` is needed; or "html" for
            a page `elche/report.html` in the folder of the run.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> from lightning_elche import CadenceMonitor, ElCheStrategy
        >>> monitor = CadenceMonitor(per_rank=True)
        >>> trainer = Trainer(
        ...     strategy=ElCheStrategy(),
        ...     accelerator="cpu",
        ...     devices=2,
        ...     callbacks=[monitor],
        ...     logger=False,
        ... )
    """

    def __init__(
        self,
        *,
        every_n_averages: int = 1,
        per_rank: bool = False,
        events: bool = True,
        detail_steps: int = 0,
        stall_ms: float = 50.0,
        progress_bar: bool = True,
        report: str | Path | None = None,
    ) -> None:
        if every_n_averages < 1:
            raise ValueError(f"`every_n_averages` must be >= 1, got {every_n_averages}.")
        if detail_steps < 0:
            raise ValueError(f"`detail_steps` must be >= 0, got {detail_steps}. 0 records none.")
        if not stall_ms > 0.0:
            raise ValueError(f"`stall_ms` must be > 0, got {stall_ms}. It is in milliseconds.")
        if report is not None and not events:
            raise ValueError("`events` must be True for a `report`, which is made of them.")
        self._every_n_averages = every_n_averages
        self._per_rank = per_rank
        self._writes_events = events
        self._detail_steps = detail_steps
        self._stall_ms = stall_ms
        self._progress_bar = progress_bar
        self._report = None if report is None else ReportTarget(report)
        self._trainer: Trainer | None = None
        self._log: EventLog | None = None
        self._probe: RankProbe | None = None
        self._last: AveragingEvent | None = None

    @property
    def writes_events(self) -> bool:
        """Whether averaging events, validations and epochs are in the event log by it."""
        return self._writes_events

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        leave_out_idle_hooks(self)
        if stage != "fit":
            return
        if self._report is not None:
            self._report.check()
        self._trainer, self._last = trainer, None
        has_averages = isinstance(trainer.strategy, ElCheStrategy) and trainer.strategy.has_averages
        if not has_averages:
            rank_zero_info(NO_AVERAGES)
        if self._writes_events:
            self._log = attach(trainer)
            self._probe = RankProbe(
                trainer,
                self._log,
                stall_ms=self._stall_ms,
                detail_steps=self._detail_steps,
                has_averages=has_averages,
            )
        if self._progress_bar:
            self._add_fields(trainer.progress_bar_callback)

    def on_average_end(self, event: AveragingEvent) -> None:
        """Log and record the event; called by ElCheStrategy on every rank."""
        if self._probe is not None:
            self._probe.on_average_end(event)
        trainer = self._trainer
        if trainer is None or not trainer.is_global_zero:
            return
        self._last = event  # what the bar shows
        if event.index % self._every_n_averages == 0:
            metrics = metrics_of(event, per_rank=self._per_rank)
            for logger in trainer.loggers:
                logger.log_metrics(metrics, step=event.global_step)

    @override
    def on_train_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,  # the user's
        batch_idx: int,
    ) -> None:
        if self._probe is not None:
            self._probe.on_batch_start()

    @override
    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # the user's
        batch: Any,  # the user's
        batch_idx: int,
    ) -> None:
        if self._probe is not None:
            self._probe.on_batch_end()

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._probe is not None:
            self._probe.on_validation_start()

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._probe is not None:
            self._probe.on_validation_end()

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._log is None:
            return
        self._finish()
        if self._report is not None:
            trainer.strategy.barrier("elche-timeline")  # until every rank has written its log
            if trainer.is_global_zero:
                self._report.write(run_folder(trainer))

    @override
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._close(trainer)

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._close(trainer)

    def _finish(self) -> None:
        if self._probe is not None and self._log is not None:
            self._probe.close()
            self._probe = None
            self._log.finish()

    def _close(self, trainer: Trainer) -> None:
        self._finish()
        if self._log is not None:
            self._log = None
            release(trainer)

    def _add_fields(self, bar: ProgressBar | None) -> None:
        if bar is None:
            return
        stock_metrics = type(bar).get_metrics

        def get_metrics(trainer: Trainer, module: LightningModule) -> dict[str, Any]:
            fields: dict[str, Any] = stock_metrics(bar, trainer, module)
            if self._last is not None:
                event = self._last
                fields |= {"anchor": event.plan.anchor, "idle": f"{event.idle_ratio:.1%}"}
            return fields

        vars(bar)["get_metrics"] = get_metrics  # of this bar only
