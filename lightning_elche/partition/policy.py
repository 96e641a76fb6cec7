"""When a checkpoint is due."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_elche.partition.errors import InvalidConfig

__all__ = ["CheckpointPolicy"]


@dataclass(frozen=True, kw_only=True)
class CheckpointPolicy:
    """When checkpoints are made by themselves; any rule that is due makes one.

    Args:
        every_steps: At each multiple of this number of steps, or at the first point behind it.
        every_epochs: At the end of each epoch whose number is a multiple of this.
        every_s: This many seconds after the last one.

    Example:
        >>> policy = CheckpointPolicy(every_steps=100)
        >>> [policy.due(step, last_step) for step, last_step in [(99, 90), (103, 99), (104, 103)]]
        [False, True, False]
    """

    every_steps: int | None = 1000
    every_epochs: int | None = None
    every_s: float | None = None

    def __post_init__(self) -> None:
        """Validate."""
        if self.every_steps is not None and self.every_steps < 1:
            raise InvalidConfig("checkpoint interval_steps must be greater than zero")
        if self.every_epochs is not None and self.every_epochs < 1:
            raise InvalidConfig(f"`every_epochs` must be >= 1, got {self.every_epochs}.")
        if self.every_s is not None and not self.every_s > 0.0:
            raise InvalidConfig(f"`every_s` must be > 0, got {self.every_s}.")

    @classmethod
    def disabled(cls) -> CheckpointPolicy:
        """Return the policy by which none is ever due."""
        return cls(every_steps=None)

    def due(
        self,
        step: int,
        last_step: int,
        *,
        epochs: int = 0,
        last_epochs: int = 0,
        elapsed_s: float = 0.0,
    ) -> bool:
        """Return whether a checkpoint is due.

        Args:
            step: The present step.
            last_step: The step when this was last asked, at first the one that was resumed from.
            epochs: Epochs that have ended.
            last_epochs: Epochs that had ended when this was last asked.
            elapsed_s: Seconds since the last checkpoint.
        """
        return (
            _has_crossed(step, last_step, self.every_steps)
            or _has_crossed(epochs, last_epochs, self.every_epochs)
            or (self.every_s is not None and elapsed_s >= self.every_s)
        )


def _has_crossed(now: int, last: int, every: int | None) -> bool:
    """Return whether a multiple of `every` was reached, also if it was jumped over."""
    return every is not None and now // every > last // every
