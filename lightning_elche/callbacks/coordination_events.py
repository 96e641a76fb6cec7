"""Tells what the ranks have agreed on at averaging events, and how epochs ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning_elche.callbacks.cadence_monitor import CadenceMonitor
from lightning_elche.callbacks.run_events import emit
from lightning_elche.coordination.decisions import decisions_of

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

    from lightning_elche.control.events import AveragingEvent
    from lightning_elche.control.schedule import Plan
    from lightning_elche.coordination.router import EventRouter

__all__ = ["RunEvents"]


class RunEvents:
    """Tells of `average`, `anchor`, `share`, `epoch_end` and `validation_end`.

    Where a `CadenceMonitor` records these in the event log, only subscribers are told.

    Args:
        router: Of the run.
    """

    def __init__(self, router: EventRouter) -> None:
        self._tell = router.publish
        self._plan: Plan | None = None
        self._averages = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find out whether somebody else records the same."""
        del pl_module, stage
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]  # set by a connector
        monitors = (one for one in callbacks if isinstance(one, CadenceMonitor))
        if not any(monitor.writes_events for monitor in monitors):
            self._tell = emit

    def on_average_end(self, event: AveragingEvent) -> None:
        """Tell of an event and of what it has changed."""
        self._averages = event.index + 1
        for kind, data in decisions_of(event, before=self._plan):
            self._tell(kind, **data)
        self._plan = event.plan

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell that an epoch is over."""
        del pl_module
        self._tell("epoch_end", epoch=trainer.current_epoch, global_step=trainer.global_step)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell what a validation has measured."""
        del pl_module
        if not trainer.sanity_checking:
            self._tell(
                "validation_end",
                epoch=trainer.current_epoch,
                global_step=trainer.global_step,
                metrics={name: float(value) for name, value in trainer.callback_metrics.items()},
            )

    def status(self) -> dict[str, object]:
        """Return the number of averaging events and the present plan."""
        if self._plan is None:
            return {"averages": self._averages}
        return {
            "averages": self._averages,
            "anchor": self._plan.anchor,
            "shares": list(self._plan.shares),
        }
