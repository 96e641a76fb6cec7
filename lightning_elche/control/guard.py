"""The convergence guard: whether replicas drift apart too far between averaging events."""

from __future__ import annotations

import enum
import math
from collections import deque
from dataclasses import dataclass

__all__ = ["ConvergenceGuard", "GuardAction", "GuardConfig"]

TREND_LENGTH = 3
TIGHTEN_MULTIPLE = 4.0


class GuardAction(enum.IntEnum):
    """What the cadence must do about the replicas' divergence."""

    STABLE = 0
    HOLD = 1
    TIGHTEN = 2


@dataclass(frozen=True, kw_only=True)
class GuardConfig:
    """When divergence between replicas limits the cadence.

    Args:
        enabled: Whether the guard acts at all.
        threshold: Relative distance `||pre - post|| / ||post||` of a replica to the average above
            which windows must not get longer.
        history: Number of events that the guard remembers, at least 3.

    Example:
        >>> GuardConfig(threshold=0.1)
        GuardConfig(enabled=True, threshold=0.1, history=5)
    """

    enabled: bool = True
    threshold: float = 0.05
    history: int = 5

    def __post_init__(self) -> None:
        """Validate."""
        if not self.threshold > 0.0:
            raise ValueError(f"`threshold` must be > 0, got {self.threshold}.")
        if self.history < TREND_LENGTH:
            raise ValueError(f"`history` must be >= {TREND_LENGTH}, got {self.history}.")


class ConvergenceGuard:
    """Watches the largest relative distance of a replica to the average, event by event.

    The cadence is held, so that windows do not get longer, while the last three values are all
    above the threshold, or rise strictly to above it; before there are three, those there are
    count. Three values above four times the threshold tighten it. One spike among smaller values
    never acts.

    Args:
        config: Threshold and memory.

    Example:
        >>> guard = ConvergenceGuard()
        >>> [guard.report(delta).name for delta in (0.02, 0.04, 0.06)]
        ['STABLE', 'STABLE', 'HOLD']
    """

    def __init__(self, config: GuardConfig | None = None) -> None:
        self.config = config or GuardConfig()
        self._deltas: deque[float] = deque(maxlen=self.config.history)

    @property
    def deltas(self) -> tuple[float, ...]:
        """The remembered values, oldest first."""
        return tuple(self._deltas)

    def report(self, max_relative_delta: float) -> GuardAction:
        """Take in one event and return what to do. Values that are not finite count as infinite."""
        is_finite = math.isfinite(max_relative_delta)
        self._deltas.append(max_relative_delta if is_finite else math.inf)
        if not self.config.enabled:
            return GuardAction.STABLE
        recent = list(self._deltas)[-TREND_LENGTH:]
        threshold = self.config.threshold
        if len(recent) == TREND_LENGTH and min(recent) > TIGHTEN_MULTIPLE * threshold:
            return GuardAction.TIGHTEN
        rises = len(recent) == TREND_LENGTH and recent[0] < recent[1] < recent[2]
        if min(recent) > threshold or (rises and recent[-1] > threshold):
            return GuardAction.HOLD
        return GuardAction.STABLE

    def reset(self) -> None:
        """Forget all events."""
        self._deltas.clear()

    def state_dict(self) -> dict[str, list[float]]:
        """Return the remembered values."""
        return {"deltas": list(self._deltas)}

    def load_state_dict(self, state: dict[str, list[float]]) -> None:
        """Continue from `state`, keeping the most recent `history` values."""
        self._deltas = deque(state["deltas"], maxlen=self.config.history)

    def __repr__(self) -> str:
        recent = ", ".join(f"{delta:.3g}" for delta in self._deltas)
        return f"ConvergenceGuard(threshold={self.config.threshold}, deltas=[{recent}])"
