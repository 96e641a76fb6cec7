"""Shows and logs what happens at averaging events."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback
from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

from lightning_elche.timeline.spans import spans_of
from lightning_elche.timeline.swimlane import draw_swimlane

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import ProgressBar

    from lightning_elche.control.events import AveragingEvent

__all__ = ["CadenceMonitor"]


class CadenceMonitor(Callback):
    """Logs the `elche/*` metrics at averaging events, on rank zero, without communicating.

    The progress bar gets two fields: the anchor and the part of the ranks' time spent waiting.

    Args:
        every_n_averages: Log at every n-th averaging event.
        per_rank: Log share, step time and step count of each rank as well.
        progress_bar: Show the two fields in the progress bar.
        report: Write a picture of the run to this file at the end of training: one lane per rank,
            coloured by compute, wait and average. Needs the extra `plot`.

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
        progress_bar: bool = True,
        report: str | Path | None = None,
    ) -> None:
        if every_n_averages < 1:
            raise ValueError(f"`every_n_averages` must be >= 1, got {every_n_averages}.")
        self._every_n_averages = every_n_averages
        self._per_rank = per_rank
        self._progress_bar = progress_bar
        self._report = None if report is None else Path(report)
        self._trainer: Trainer | None = None
        self._events: list[tuple[float, AveragingEvent]] = []

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        if self._report is not None:
            _check_plot(self._report)
        self._trainer = trainer
        self._events = []
        if self._progress_bar:
            self._add_fields(trainer.progress_bar_callback)

    def on_average_end(self, event: AveragingEvent) -> None:
        """Log the event; called by ElCheStrategy on every rank."""
        trainer = self._trainer
        if trainer is None or not trainer.is_global_zero:
            return
        if self._report is None:
            self._events.clear()  # the bar shows the last one
        self._events.append((time.perf_counter(), event))
        if event.index % self._every_n_averages == 0:
            metrics = metrics_of(event, per_rank=self._per_rank)
            for logger in trainer.loggers:
                logger.log_metrics(metrics, step=event.global_step)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._report is None or not trainer.is_global_zero:
            return
        spans = spans_of(self._events)
        if not spans:
            rank_zero_info(f"{self._report} was not written: there were fewer than two averages.")
            return
        totals = [
            sum(event.reports[rank].samples for _, event in self._events)
            for rank in range(trainer.world_size)
        ]
        shares = [total / sum(totals) for total in totals]
        title = f"{len(self._events)} averaging events, anchor {self._events[-1][1].plan.anchor}"
        draw_swimlane(spans, self._report, shares=shares, title=title)

    def _add_fields(self, bar: ProgressBar | None) -> None:
        if bar is None:
            return
        stock_metrics = type(bar).get_metrics

        def get_metrics(trainer: Trainer, module: LightningModule) -> dict[str, Any]:
            fields: dict[str, Any] = stock_metrics(bar, trainer, module)
            if self._events:
                event = self._events[-1][1]
                fields |= {"anchor": event.plan.anchor, "idle": f"{event.idle_ratio:.1%}"}
            return fields

        vars(bar)["get_metrics"] = get_metrics  # of this bar only


def metrics_of(event: AveragingEvent, *, per_rank: bool = False) -> dict[str, float]:
    """Return the logged metrics of one event, by name."""
    plan = event.plan
    metrics = {
        "elche/anchor": float(plan.anchor),
        "elche/local_steps": float(plan.local_steps[plan.fastest]),
        "elche/share": plan.shares[plan.fastest],
        "elche/sync_ms": event.transfer_ms,
        "elche/wait_ms": event.wait_ms,
        "elche/overhead_ratio": event.overhead_ratio,
        "elche/idle_ratio": event.idle_ratio,
        "elche/divergence": event.divergence,
        "elche/overshoot": float(plan.max_overshoot),
        "elche/saved_bytes": float(event.saved_bytes),
        "elche/batch_ms/min": min(plan.ms_per_batch),
        "elche/batch_ms/median": statistics.median(plan.ms_per_batch),
        "elche/batch_ms/max": max(plan.ms_per_batch),
    }
    if per_rank:
        for rank, share in enumerate(plan.shares):
            metrics[f"elche/rank{rank}/share"] = share
            metrics[f"elche/rank{rank}/local_steps"] = float(plan.local_steps[rank])
            metrics[f"elche/rank{rank}/batch_ms"] = plan.ms_per_batch[rank]
    return metrics


def _check_plot(report: Path) -> None:
    try:
        import matplotlib  # noqa: F401  # found now rather than after hours of training
    except ModuleNotFoundError as err:
        raise ModuleNotFoundError(
            f"`report` ({report}) needs matplotlib. Install `lightning-elche[plot]`."
        ) from err
    if not report.resolve().parent.is_dir():
        raise FileNotFoundError(f"`report` must be in an existing folder, got {report}.")
