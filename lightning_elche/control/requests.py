"""What a rank may ask of all ranks; they hear of it at the next averaging event."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Requests", "StopCause", "first_cause"]


class StopCause(enum.IntEnum):
    """Why a run ends before its time."""

    NONE = 0
    SIGTERM = 1
    SIGINT = 2
    FAILURE = 8

    @property
    def exit_code(self) -> int:
        """The exit code that tells this cause: 128 plus the number of the signal, as in a shell."""
        return {StopCause.NONE: 0, StopCause.SIGTERM: 143, StopCause.SIGINT: 130}.get(self, 1)


@dataclass(frozen=True, kw_only=True)
class Requests:
    """What one rank asks for.

    Attributes:
        should_stop: End the epoch and the training, as `Trainer.should_stop`.
        stop: End the run at once, and why.
        alignment: Meet at the same point, since something is due that needs all ranks.
        abstains: Leave this rank out of the average, since it is in the midst of a step.
    """

    should_stop: bool = False
    stop: StopCause = StopCause.NONE
    alignment: bool = False
    abstains: bool = False


def first_cause(causes: Iterable[StopCause]) -> StopCause:
    """Return the cause that counts where ranks have several: the smallest, or `NONE`."""
    return min((cause for cause in causes if cause), default=StopCause.NONE)
