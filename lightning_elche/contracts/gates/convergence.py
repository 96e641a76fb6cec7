"""When a run has converged, when it is given up, and whether it ended there."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass

from lightning_elche.contracts.float32 import to_float32
from lightning_elche.contracts.gates import ids as gateids
from lightning_elche.contracts.gates.tally import Tally
from lightning_elche.contracts.model import Convergence
from lightning_elche.contracts.values import shown
from lightning_elche.contracts.verdicts import GateResult

__all__ = ["EpochEnd", "Progress", "RunEnd", "epoch_gaps", "judge_patience", "judge_target"]

UNFINISHED = ("RUNNING", "INTERRUPTED")


class EpochEnd(enum.Enum):
    """What follows an epoch."""

    NEXT = "next"
    EARLY_STOP = "early_stop"
    TARGET = "target"


@dataclass(frozen=True, kw_only=True)
class RunEnd:
    """How a run ended.

    Attributes:
        status: As in `RunRecord`; `None` if nobody knows.
        stop_reason: As there.
        epochs_completed: Epochs with a validation loss.
    """

    status: str | None
    stop_reason: str | None
    epochs_completed: int


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run has converged.

    Attributes:
        best: Smallest validation loss; infinite at first.
        best_epoch: The epoch that had it; `None` at first.
        misses: Epochs since then.
    """

    best: float = math.inf
    best_epoch: int | None = None
    misses: int = 0

    def after(self, epoch: int, val_loss: float) -> Progress:
        """Return the progress after one more epoch."""
        value = to_float32(val_loss)
        if value < self.best:
            return Progress(best=value, best_epoch=epoch)
        return Progress(best=self.best, best_epoch=self.best_epoch, misses=self.misses + 1)

    def is_out_of_patience(self, epoch: int, rules: Convergence) -> bool:
        """Return whether the run is to be stopped after `epoch`."""
        return (
            rules.early_stop_on_patience_exhausted
            and self.misses > rules.patience_epochs
            and epoch + 1 >= rules.min_epochs_before_early_stop
        )


def epoch_gaps(val_losses: Mapping[int, float], end: RunEnd) -> str | None:
    """Return why the validation losses do not tell all of a run; `None` if they do.

    Args:
        val_losses: By epoch.
        end: How many epochs there should be.
    """
    if not val_losses and end.epochs_completed <= 0:
        return "no epoch was completed"
    expected = range(max(end.epochs_completed, max(val_losses, default=-1) + 1))
    missing = next((epoch for epoch in expected if epoch not in val_losses), None)
    if missing is not None:
        return f"epoch {missing} has no validation loss on record"
    first = min(val_losses)
    return f"epoch {first} cannot be" if first < 0 else None


def judge_target(val_losses: Mapping[int, float], target: float | None, end: RunEnd) -> GateResult:
    """Judge whether the last completed epoch is at the target.

    Args:
        val_losses: By epoch.
        target: Largest validation loss that may ship; `None` if there is no target.
        end: How the run ended.
    """
    tally = Tally(gateids.TARGET)
    last = max(end.epochs_completed - 1, max(val_losses, default=-1))
    if target is None:
        tally.doubt("the contract has no target")
    if end.status in UNFINISHED:
        tally.doubt(f"the run is {end.status}")
    if last not in val_losses:
        tally.doubt("no epoch was completed" if last < 0 else f"epoch {last} is not on record")
    if target is None or tally.doubts:
        return tally.result("")
    value = to_float32(val_losses[last])
    best = min(val_losses.items(), key=lambda item: item[1])
    facts = f"val_loss {shown(value)} at epoch {last}, best {shown(best[1])} at epoch {best[0]}"
    if not value <= to_float32(target):
        tally.fail(f"{facts}: above the target {shown(target)}")
    return tally.result(f"{facts}: within the target {shown(target)}")


def judge_patience(val_losses: Mapping[int, float], rules: Convergence, end: RunEnd) -> GateResult:
    """Replay the run and judge whether it stopped where patience was lost, and only there.

    Args:
        val_losses: By epoch.
        rules: Patience and the minimum of epochs.
        end: How the run ended.
    """
    tally = Tally(gateids.PATIENCE)
    gap = epoch_gaps(val_losses, end)
    if gap is not None:
        tally.doubt(gap)
        return tally.result("")
    last = max(val_losses)
    stop = _lost_patience_at(val_losses, rules)
    if stop is not None and stop < last:
        tally.fail(f"patience was lost at epoch {stop}, but the run went on to epoch {last}")
    if stop is None and end.status == "EARLY_STOP":
        tally.fail(f"the run stopped early at epoch {last}, but patience was not lost")
    return tally.result(f"{len(val_losses)} epochs")


def _lost_patience_at(val_losses: Mapping[int, float], rules: Convergence) -> int | None:
    progress = Progress()
    for epoch in sorted(val_losses):
        progress = progress.after(epoch, val_losses[epoch])
        if progress.is_out_of_patience(epoch, rules):
            return epoch
    return None
