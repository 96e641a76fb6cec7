"""What a rank may ask of all ranks; they hear of it at the next averaging event."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Requests", "StopCause", "first_cause"]


class StopCause(enum.IntEnum):
    """Why a run ends before its time; of several causes the smallest counts."""

    NONE = 0
    SIGTERM = 1
    SIGINT = 2
    REQUEUE = 3  # a scheduler wants to run it again later
    HALT = 4  # somebody has asked for it
    DEADLINE = 5
    BREAKER = 6  # too many failures
    THRESHOLD = 7  # the machine is short of something
    FAILURE = 8  # of a rank
    API = 9  # code has asked for it

    @property
    def exit_code(self) -> int:
        """The exit code that tells this cause: 128 plus the number of the signal, as in a shell."""
        if self is StopCause.NONE:
            return 0
        if self is StopCause.SIGINT:
            return 130
        return 1 if StopCause.BREAKER <= self <= StopCause.FAILURE else 143


@dataclass(frozen=True, kw_only=True)
class Requests:
    """What one rank asks for.

    Attributes:
        should_stop: End the epoch and the training, as `Trainer.should_stop`.
        stop: End the run at once, and why.
        alignment: Meet at the same point, since something is due that needs all ranks.
        abstains: Leave this rank out of the average, since it is in the midst of a step.
        pause: Meet at once, and wait at the end of the event until this is withdrawn.
        checkpoint: Save a checkpoint after the next event.
    """

    should_stop: bool = False
    stop: StopCause = StopCause.NONE
    alignment: bool = False
    abstains: bool = False
    pause: bool = False
    checkpoint: bool = False

    @property
    def is_urgent(self) -> bool:
        """Whether all ranks should meet at once."""
        return self.stop is not StopCause.NONE or self.pause


def first_cause(causes: Iterable[StopCause]) -> StopCause:
    """Return the cause that counts where ranks have several: the smallest, or `NONE`."""
    return min((cause for cause in causes if cause), default=StopCause.NONE)
