"""Whether the latest batches were healthy, by their losses and by the snapshots between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lightning_elche.callbacks.rollback_state import divisor_of
from lightning_elche.callbacks.rollback_watch import LossWatch, monitored
from lightning_elche.control.recovery import Stage
from lightning_elche.control.spike import SpikeDetector
from lightning_elche.ops.ring import Ring, Slot

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

__all__ = ["Judge", "Verdict"]


@dataclass(slots=True)
class Verdict:
    """What is to be thought of the batches since the last check.

    Attributes:
        is_bad: Whether one was bad.
        has_value: Whether there was a value to judge.
        cause: What was bad.
    """

    is_bad: bool
    has_value: bool
    cause: str


class Judge:
    """Collects the values of batches and checks them together with snapshots.

    Args:
        trainer: Trains.
        detector: Judges values.
        ring: Its pending snapshots are checked, too.
        agrees: Whether all ranks make the same steps, and must agree.
    """

    def __init__(
        self, trainer: Trainer, detector: SpikeDetector, ring: Ring, *, agrees: bool
    ) -> None:
        self._trainer, self._strategy = trainer, trainer.strategy
        self._detector = detector
        self._ring = ring
        self._agrees = agrees
        self._watch = LossWatch()
        self._batches = 0  # since the last check
        self._is_reported = False

    def reset(self) -> None:
        """Forget what was not checked."""
        self._watch.reset()
        self._batches = 0

    def report(self) -> None:
        """Take in that a step was bad, as somebody else has found."""
        self._is_reported = True

    def add(self, outputs: Any) -> bool:  # noqa: ANN401  # whatever a step returned
        """Take in a batch and return whether it is time for a check.

        Args:
            outputs: As in `Callback.on_train_batch_end`.
        """
        config = self._detector.config
        value = monitored(outputs, config.monitor)
        if value is not None:
            self._watch.add(value, factor=divisor_of(self._trainer, config.monitor))
        self._batches += 1
        return self._batches >= config.check_every

    def verdict(self, *, is_last: bool) -> Verdict:
        """Judge the batches since the last check; snapshots that are not finite are dropped.

        Args:
            is_last: Look at the present state as well.
        """
        self._batches = 0
        pending = self._ring.pending()
        sums = [slot.snapshot.sums for slot in pending]
        readings = self._watch.read([*sums, self._ring.live_sums()] if is_last else sums)
        cause = self._cause(readings.value, readings.are_finite)
        is_bad = cause != ""
        self._is_reported = False
        if self._agrees:
            # The order on every rank: whether the check is bad, then each snapshot.
            is_bad = self._strategy.reduce_boolean_decision(is_bad, all=False)
        self._sort(pending, readings.are_finite, is_bad=is_bad)
        return Verdict(is_bad, readings.value is not None, cause or "bad on another rank")

    def _sort(self, pending: Sequence[Slot], are_finite: Sequence[bool], *, is_bad: bool) -> None:
        for slot, is_finite in zip(pending, are_finite, strict=False):
            if is_bad and self._agrees:
                is_finite = self._strategy.reduce_boolean_decision(is_finite)
            if is_finite:
                slot.stage = Stage.ELIGIBLE
            else:
                self._ring.drop(slot)

    def _cause(self, value: float | None, are_finite: Sequence[bool]) -> str:
        """Return what is bad, nothing if all is well."""
        config, mean = self._detector.config, self._detector.mean
        if value is not None and self._detector.is_bad(value):
            if value - value == 0.0:
                return f"{config.monitor} {value:.6g} after an average of {mean:.6g}"
            return f"{config.monitor} {value:g}"
        if self._is_reported:
            return "loss or gradients that are not finite"
        return "" if all(are_finite) else "parameters or optimizer states that are not finite"
