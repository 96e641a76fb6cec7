"""How long a run takes, and how far it is."""

from __future__ import annotations

import hashlib
import json
import math
import socket
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from lightning_elche.coordination.schedule.durations import (
    DEFAULT_DURATIONS_S,
    Duration,
    DurationFile,
    DurationModel,
    Eta,
    eta,
)

if TYPE_CHECKING:
    from pathlib import Path

    from lightning.pytorch import LightningModule, Trainer

    from lightning_elche.coordination.schedule.durations import DurationEstimate, DurationStore

__all__ = ["RunDurations", "fingerprint_of"]

OTHERS = "train"  # what kinds of which no default is known are taken for


class RunDurations:
    """Estimates the duration of a fit by earlier ones, and records it.

    Args:
        trainer: About to train.
        pl_module: Its model.
        folder: Of the run; `durations.jsonl` there holds the durations of its fits.
        store: Holds those of other runs as well; `None` if there is none.
        defaults_s: As `ScheduleConfig.defaults_s`.
        kind: Of the run, as `LimitsConfig.kind`.
        now: Returns the time, in seconds since 1970.
    """

    def __init__(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        *,
        folder: Path,
        store: DurationStore | None,
        defaults_s: Mapping[str, float],
        kind: str = "train",
        now: Callable[[], float] = time.time,
    ) -> None:
        self._trainer, self._kind, self._now = trainer, kind, now
        self._file = DurationFile(folder / "durations.jsonl")
        self._store = store
        known_s = {**DEFAULT_DURATIONS_S, **defaults_s}
        known_s.setdefault(kind, known_s[OTHERS])
        model = DurationModel(store or self._file, defaults_s=known_s, now=now)
        self._fingerprint = fingerprint_of(trainer, pl_module)
        self._host = socket.gethostname()
        self.estimate: DurationEstimate = model.estimate(
            kind, fingerprint=self._fingerprint, host=self._host
        )
        self._began = self._now()
        self._first_step, self._steps = 0, math.inf

    def begin(self) -> None:
        """Take in that training begins."""
        self._began = self._now()
        self._first_step = self._trainer.global_step
        self._steps = self._trainer.estimated_stepping_batches

    def end(self, *, is_success: bool) -> None:
        """Record how long it took; on rank zero."""
        if not self._trainer.is_global_zero:
            return
        duration = Duration(
            kind=self._kind,
            fingerprint=self._fingerprint,
            host=self._host,
            seconds=round(self._now() - self._began, 3),
            at=round(self._now(), 3),
            is_success=is_success,
        )
        self._file.add_duration(duration)
        if self._store is not None:
            self._store.add_duration(duration)

    @property
    def progress(self) -> float | None:
        """Which part of the steps of this fit is done; `None` if their number is unknown."""
        total = self._steps - self._first_step
        if not 0.0 < total < math.inf:
            return None
        return min(max((self._trainer.global_step - self._first_step) / total, 0.0), 1.0)

    def eta(self) -> Eta | None:
        """Return how long it will still take; `None` if nobody knows how far it is."""
        progress = self.progress
        if progress is None:
            return None
        elapsed_s = self._now() - self._began
        return eta(elapsed_s=elapsed_s, progress=progress, estimate=self.estimate)

    def status(self) -> dict[str, object]:
        """Return progress and estimates; quick, from any thread."""
        left = self.eta()
        return {
            "progress": self.progress,
            "eta_seconds": None if left is None else round(left.median_s, 1),
            "eta_p90_seconds": None if left is None else round(left.p90_s, 1),
            "expected_seconds": self.estimate.median_s,
            "based_on": self.estimate.source,
        }


def fingerprint_of(trainer: Trainer, pl_module: LightningModule) -> str:
    """Return what is equal for fits that should take equally long: model, ranks, steps asked for.

    Cost: O(number of parameter tensors).
    """
    facts = {
        "model": f"{type(pl_module).__module__}.{type(pl_module).__qualname__}",
        "parameters": sum(parameter.numel() for parameter in pl_module.parameters()),
        "world_size": trainer.world_size,
        "device": trainer.strategy.root_device.type,
        "strategy": type(trainer.strategy).__name__,
        "max_epochs": trainer.max_epochs,
        "max_steps": trainer.max_steps,
        "limit": trainer.limit_train_batches,
    }
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
