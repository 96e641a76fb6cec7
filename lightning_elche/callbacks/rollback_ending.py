"""How a run ends that cannot be repaired, and the checkpoint of one that takes no more risks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning_elche.callbacks.child_ranks import is_child_rank
from lightning_elche.callbacks.partition_checkpoint import PartitionCheckpoint
from lightning_elche.callbacks.rollback_alarm import Alarm
from lightning_elche.control.recovery import RecoveryPolicy
from lightning_elche.control.safety import SafetyLadder, SafetyLevel
from lightning_elche.exceptions import RecoveryHalted

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

__all__ = ["CONSERVATIVE_LABEL", "CautiousSave", "Ending", "saver_of"]

CONSERVATIVE_LABEL = "conservative"


class Ending:
    """Ends a run, in the way that the policy asks for.

    Args:
        trainer: Trains.
        policy: Whether to raise.
        ladder: Keeps the safety level.
        alarm: Tells of it.

    Attributes:
        is_over: Whether nothing is judged any more.
        halted: What ends the run, once it does.
        is_child: Whether another rank has launched this one.
    """

    def __init__(
        self, trainer: Trainer, policy: RecoveryPolicy, ladder: SafetyLadder, alarm: Alarm
    ) -> None:
        self._trainer, self._policy = trainer, policy
        self._ladder, self._alarm = ladder, alarm
        self.is_child = is_child_rank(trainer)
        self.is_over = False
        self.halted: RecoveryHalted | None = None

    def end(self, reason: str, *, step: int, is_poisoned: bool) -> None:
        """Judge no more, and tell that the run ends.

        Args:
            reason: Why.
            step: Optimizer step of this rank.
            is_poisoned: Whether the parameters are spoiled.
        """
        self.is_over = True
        self._alarm.tell(self._ladder.halt(reason), step=step)
        level, rank = int(SafetyLevel.HALT), self._trainer.global_rank
        self.halted = RecoveryHalted(reason, step, level, rank, is_poisoned, self.is_child)
        if self._policy.on_halt == "stop":
            self._trainer.should_stop = True

    def raise_halted(self) -> None:
        """Raise the end of the run, unless `Trainer.should_stop` stands for it."""
        if self.halted is not None and self._policy.on_halt == "raise":
            raise self.halted


class CautiousSave:
    """Saves one checkpoint when the safety level has become CONSERVATIVE.

    Args:
        trainer: Has a `PartitionCheckpoint`, or nothing is saved.
        ladder: Keeps the level.
    """

    def __init__(self, trainer: Trainer, ladder: SafetyLadder) -> None:
        self._strategy = trainer.strategy
        self._saver = saver_of(trainer)
        self._ladder = ladder
        self._is_done = False  # since the level was lower

    def is_due(self) -> bool:
        """Return whether this rank wants a checkpoint."""
        if self._ladder.level is not SafetyLevel.CONSERVATIVE:
            self._is_done = False
            return False
        return self._saver is not None and not self._is_done

    def ask(self) -> None:
        """Ask all ranks for a checkpoint at the next averaging event."""
        self._is_done = True
        self._strategy.control.request_checkpoint()  # type: ignore[attr-defined]  # ElCheStrategy

    def save(self) -> None:
        """Save now, as all ranks do."""
        self._is_done = True
        if self._saver is not None:
            self._saver.checkpoint(CONSERVATIVE_LABEL)


def saver_of(trainer: Trainer) -> PartitionCheckpoint | None:
    """Return the Trainer's first `PartitionCheckpoint`, `None` if it has none."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]  # set by a connector
    return next((one for one in callbacks if isinstance(one, PartitionCheckpoint)), None)
