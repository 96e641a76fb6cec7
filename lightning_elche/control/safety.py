"""How worried one must be about a run: levels that rise with its incidents."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Literal, TypedDict

__all__ = ["LadderState", "SafetyLadder", "SafetyLevel", "SafetySignal", "Transition"]


class SafetyLevel(enum.IntEnum):
    """How far things have gone."""

    NORMAL = 0
    NOTICE = 1
    ELEVATED = 2
    CONSERVATIVE = 3
    HALT = 4


@dataclass(frozen=True, kw_only=True)
class SafetySignal:
    """What is published when the level changes.

    Attributes:
        level: The new one.
        previous: The one before.
        cause: Why.
        step: Optimizer step of the rank.
        epoch: Epoch.
        rank: The rank that tells.
        run: Names the run; equal for all signals of a fit.
        wall_ms: Milliseconds since 1970.
    """

    level: int
    previous: int
    cause: str
    step: int
    epoch: int
    rank: int
    run: str
    wall_ms: float


@dataclass(frozen=True)
class Transition:
    """A change of the level.

    Attributes:
        level: The new one.
        previous: The one before.
        cause: Why.
    """

    level: SafetyLevel
    previous: SafetyLevel
    cause: str


class LadderState(TypedDict):
    """What a `SafetyLadder` remembers; JSON-serialisable."""

    level: int
    failed_epochs: int
    had_incident: bool


class SafetyLadder:
    """Keeps the level, which only rises until `reset`, or until an epoch without an incident.

    Args:
        max_failed_epochs: Epochs in a row with an incident that end the run.

    Attributes:
        level: The present one.
        failed_epochs: Epochs with an incident, in a row, up to now.

    Example:
        >>> ladder = SafetyLadder(max_failed_epochs=3)
        >>> ladder.incident(recent=1).level.name, ladder.incident(recent=2).level.name
        ('NOTICE', 'ELEVATED')
        >>> ladder.end_epoch(), ladder.end_epoch().level.name
        (None, 'NORMAL')
    """

    def __init__(self, *, max_failed_epochs: int) -> None:
        self._max_failed_epochs = max_failed_epochs
        self.level = SafetyLevel.NORMAL
        self.failed_epochs = 0
        self.had_incident = False  # in this epoch

    @property
    def mode(self) -> Literal["normal", "conservative"]:
        """Whether the run should take no further risks."""
        return "conservative" if self.level >= SafetyLevel.CONSERVATIVE else "normal"

    def incident(self, *, recent: int) -> Transition | None:
        """Take in that an incident was repaired.

        Args:
            recent: Incidents that are not forgotten yet, this one included.
        """
        self.had_incident = True
        if recent > 1:
            return self._rise(SafetyLevel.ELEVATED, f"{recent} incidents in short time")
        return self._rise(SafetyLevel.NOTICE, "an incident was repaired")

    def used_disk(self) -> Transition | None:
        """Take in that memory had nothing to go back to."""
        return self._rise(SafetyLevel.CONSERVATIVE, "a checkpoint was restored")

    def missed_deadline(self) -> Transition | None:
        """Take in that no checkpoint could be read in time, and the run goes on without."""
        return self._rise(SafetyLevel.CONSERVATIVE, "no checkpoint could be read in time")

    def cannot_publish(self, cause: str) -> Transition | None:
        """Take in that signals do not reach whom they are for."""
        return self._rise(SafetyLevel.CONSERVATIVE, cause)

    def halt(self, cause: str) -> Transition | None:
        """Take in that the run ends."""
        return self._rise(SafetyLevel.HALT, cause)

    def end_epoch(self) -> Transition | None:
        """Take in the end of an epoch; after it, see `has_failed_too_often`."""
        had_incident, self.had_incident = self.had_incident, False
        if had_incident:
            self.failed_epochs += 1
            return self._rise(SafetyLevel.ELEVATED, "an epoch had an incident")
        self.failed_epochs = 0
        return self._back("an epoch without an incident")

    @property
    def has_failed_too_often(self) -> bool:
        """Whether so many epochs in a row had an incident that the run should end."""
        return self.failed_epochs >= self._max_failed_epochs

    def reset(self) -> Transition | None:
        """Go back to NORMAL."""
        self.failed_epochs = 0
        self.had_incident = False
        return self._set(SafetyLevel.NORMAL, "reset")

    def _rise(self, level: SafetyLevel, cause: str) -> Transition | None:
        return self._set(level, cause) if level > self.level else None

    def _back(self, cause: str) -> Transition | None:
        return None if self.level is SafetyLevel.HALT else self._set(SafetyLevel.NORMAL, cause)

    def _set(self, level: SafetyLevel, cause: str) -> Transition | None:
        previous, self.level = self.level, level
        return Transition(level, previous, cause) if level is not previous else None

    def state_dict(self) -> LadderState:
        """Return what is remembered."""
        return LadderState(
            level=int(self.level), failed_epochs=self.failed_epochs, had_incident=self.had_incident
        )

    def load_state_dict(self, state: LadderState) -> None:
        """Continue from `state`."""
        self.level = SafetyLevel(state["level"])
        self.failed_epochs = state["failed_epochs"]
        self.had_incident = state["had_incident"]

    def __repr__(self) -> str:
        return f"SafetyLadder(level={self.level.name}, failed_epochs={self.failed_epochs})"
