"""What to do about a bad batch: which snapshot to go back to, and when to give up."""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypedDict

__all__ = ["Decision", "Mark", "Recovery", "RecoveryPolicy", "RecoveryState", "Stage"]

PROBATION = 2  # verdicts


@dataclass(frozen=True, kw_only=True)
class RecoveryPolicy:
    """How far repairs may go, and what else they bring about.

    Args:
        lr_factor: Every incident multiplies the learning rates that take effect by this; 1 to keep
            them.
        max_rollbacks: Incidents within `forget_steps` that are repaired; one more ends the run.
        forget_steps: Optimizer steps after which an incident is forgotten.
        max_failed_epochs: Epochs in a row with an incident that end the run.
        read_deadline_s: Seconds that reading a checkpoint may take, where memory has nothing to go
            back to and the Trainer has a `PartitionCheckpoint`; `None` for no limit.
        halt_on_deadline: End the run if that takes longer. Otherwise it goes on from the latest
            snapshot with finite values, which may hold the damage.
        publish_timeout_s: Time that `publish` has for a signal, in seconds.
        publish_per_min: Signals that are published in a minute; the one of the end always is.
        on_halt: "raise" `RecoveryHalted`, or "stop" as `Trainer.should_stop` does, which validates
            and ends with exit code 0.

    Example:
        >>> RecoveryPolicy(lr_factor=0.5).max_rollbacks
        3
    """

    lr_factor: float = 1.0
    max_rollbacks: int = 3
    forget_steps: int = 1000
    max_failed_epochs: int = 3
    read_deadline_s: float | None = 60.0
    halt_on_deadline: bool = True
    publish_timeout_s: float = 2.0
    publish_per_min: int = 60
    on_halt: Literal["raise", "stop"] = "raise"

    def __post_init__(self) -> None:
        """Validate."""
        if not 0.0 < self.lr_factor <= 1.0:
            raise ValueError(f"`lr_factor` must be in (0, 1], got {self.lr_factor}.")
        if self.max_rollbacks < 0:
            raise ValueError(f"`max_rollbacks` must be >= 0, got {self.max_rollbacks}.")
        for name in ("forget_steps", "max_failed_epochs", "publish_per_min"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be >= 1, got {getattr(self, name)}.")
        if not 0.0 < self.publish_timeout_s < math.inf:
            raise ValueError(
                f"`publish_timeout_s` must be a number > 0, got {self.publish_timeout_s}."
            )
        if self.read_deadline_s is not None and not 0.0 < self.read_deadline_s < math.inf:
            raise ValueError(
                f"`read_deadline_s` must be a number > 0 or None, got {self.read_deadline_s}."
            )
        if self.on_halt not in ("raise", "stop"):
            raise ValueError(f'`on_halt` must be "raise" or "stop", got {self.on_halt!r}.')


class Stage(enum.IntEnum):
    """How far a snapshot is trusted; only the last two may be restored."""

    PENDING = 0
    ELIGIBLE = 1  # all of its values are finite
    CONFIRMED = 2  # and a batch run on it was healthy


class Mark(Protocol):
    """A snapshot, as far as decisions need to know of it."""

    stage: Stage

    @property
    def is_lasting(self) -> bool:
        """Whether it is not given up for another one of its round."""
        ...


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What to do about a bad batch.

    Attributes:
        action: "restore" the snapshot; it "lacks" one; or "halt" the run.
        index: Of the snapshot to restore, in the sequence that was asked about; `None` if there is
            none.
        is_new: Whether an incident begins, rather than goes on.
        reason: In words.
    """

    action: Literal["restore", "lacks", "halt"]
    index: int | None
    is_new: bool
    reason: str


class RecoveryState(TypedDict):
    """What a `Recovery` remembers from one process to the next; JSON-serialisable."""

    lr_scale: float
    incidents: int
    recent: list[int]


class Recovery:
    """Decides what is restored.

    A bad batch begins an incident, and the latest snapshot with finite values is restored. If one
    of the next two verdicts is bad, that snapshot may hold the damage itself: it is dropped, and
    the latest one before it on which a batch was healthy is restored, in the same incident. Bad
    again after one of those: the one before it, in a new incident.

    Args:
        policy: The limits.

    Attributes:
        lr_scale: What learning rates should be multiplied by.
        incidents: How many there were.
    """

    def __init__(self, policy: RecoveryPolicy | None = None) -> None:
        self.policy = policy or RecoveryPolicy()
        self.reset()

    def reset(self) -> None:
        """Forget all incidents and what they did to learning rates."""
        self.lr_scale = 1.0
        self.incidents = 0
        self._recent: list[int] = []
        self.begin_round()

    def begin_round(self) -> None:
        """Take in that all snapshots were replaced by others."""
        self._restored: Mark | None = None
        self._was_confirmed = False
        self._probation = 0

    def healthy(self) -> None:
        """Take in a verdict that all is well."""
        self._probation = max(0, self._probation - 1)

    def bad(self, marks: Sequence[Mark], *, step: int) -> Decision:
        """Take in a bad verdict and return what to do.

        Args:
            marks: The snapshots, oldest first.
            step: Optimizer step that this rank has come to.
        """
        fallback = self._fallback(marks)
        is_new = self._probation == 0 or self._was_confirmed
        if is_new and not self._may_begin(step):
            reason = (
                f"More than {self.policy.max_rollbacks} rollbacks within "
                f"{self.policy.forget_steps} steps"
            )
            newest = _newest(marks, Stage.ELIGIBLE)
            return Decision(action="halt", index=newest, is_new=True, reason=reason)
        if is_new:
            self.incidents += 1
            self._recent.append(step)
            self.lr_scale *= self.policy.lr_factor
        if fallback is None:
            newest = _newest(marks, Stage.ELIGIBLE)
            reason = "No snapshot is from before the damage"
            return Decision(action="lacks", index=newest, is_new=is_new, reason=reason)
        self._restored = marks[fallback]
        self._was_confirmed = marks[fallback].stage is Stage.CONFIRMED
        self._probation = PROBATION
        kind = "confirmed" if self._was_confirmed else "eligible"
        reason = f"The latest {kind} snapshot"
        return Decision(action="restore", index=fallback, is_new=is_new, reason=reason)

    def recent(self, step: int) -> int:
        """Return how many incidents are not forgotten at `step`."""
        self._recent = [past for past in self._recent if step - past < self.policy.forget_steps]
        return len(self._recent)

    def may_restore(self, marks: Sequence[Mark], *, step: int) -> bool:
        """Return whether a bad verdict now would be repaired, if what is pending is finite."""
        is_new = self._probation == 0 or self._was_confirmed
        return len(marks) > 0 and (not is_new or self._may_begin(step))

    def to_evict(self, marks: Sequence[Mark]) -> int | None:
        """Return the snapshot to give up for a new one, `None` if all are needed.

        It is the one unused for the longest time, but neither the latest that may be restored, nor
        the latest on which a batch was healthy, nor what a bad verdict would fall back to. Since a
        restored snapshot is the latest one, that is the oldest of the others.
        """
        kept = {_newest(marks, Stage.ELIGIBLE), _newest(marks, Stage.CONFIRMED)}
        if self._probation:
            kept |= {self._fallback(marks), self._place(marks)}
        kept |= {index for index, mark in enumerate(marks) if mark.is_lasting}
        return next((index for index in range(len(marks)) if index not in kept), None)

    def _may_begin(self, step: int) -> bool:
        return self.recent(step) < self.policy.max_rollbacks

    def _fallback(self, marks: Sequence[Mark]) -> int | None:
        """Return what a bad verdict would restore."""
        if not self._probation:
            return _newest(marks, Stage.ELIGIBLE)
        return _newest(marks[: self._place(marks)], Stage.CONFIRMED)

    def _place(self, marks: Sequence[Mark]) -> int:
        return [mark is self._restored for mark in marks].index(True)

    def state_dict(self) -> RecoveryState:
        """Return what outlives the snapshots."""
        return RecoveryState(
            lr_scale=self.lr_scale, incidents=self.incidents, recent=list(self._recent)
        )

    def load_state_dict(self, state: RecoveryState) -> None:
        """Continue from `state`, without snapshots."""
        self.reset()
        self.lr_scale = state["lr_scale"]
        self.incidents = state["incidents"]
        self._recent = list(state["recent"])

    def __repr__(self) -> str:
        return f"Recovery(incidents={self.incidents}, lr_scale={self.lr_scale:.6g})"


def _newest(marks: Sequence[Mark], stage: Stage) -> int | None:
    found = [index for index, mark in enumerate(marks) if mark.stage >= stage]
    return found[-1] if found else None
