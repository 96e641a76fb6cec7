"""How long a run may take to stop, and what to do at each moment until then; pure."""

from __future__ import annotations

import enum
import math
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from lightning_elche.control.requests import StopCause

__all__ = [
    "SIGNAL_CAUSES",
    "Moment",
    "Progress",
    "StopAction",
    "StopBudget",
    "StopConfig",
    "estimated_save_s",
    "lockstep_stop",
    "next_action",
    "plan_stop",
]

SIGNAL_CAUSES = {
    "SIGTERM": StopCause.SIGTERM,
    "SIGINT": StopCause.SIGINT,
    "SIGHUP": StopCause.SIGTERM,
    "SIGUSR1": StopCause.REQUEUE,
    "SIGUSR2": StopCause.REQUEUE,
}
REQUEUE_CHOICES = ("auto", "always", "never")
BYTES_PER_S = 200e6
MIN_SAVE_S, SAVE_MARGIN_S = 2.0, 3.0
SHARE_TO_MEET = 0.25
EARLY_GRACE_S = 5.0
LOCKSTEP_NOTICE_S, LOCKSTEP_NOTICE_STEPS = 1.0, 2
MAX_EXIT_CODE = 255
DEFAULT_TERMINATED = 143


@dataclass(frozen=True, kw_only=True)
class StopConfig:
    """How a run stops before its time.

    Args:
        grace_s: Seconds from the request to the end of the process, as long as whoever sends the
            signal waits before it kills. SLURM waits 30 by default, Kubernetes 30, Docker 10.
        signals: Names of the signals that stop the run; SIGUSR1 and SIGUSR2 tell that a scheduler
            wants to run it again.
        exit_code: Of a run that was stopped, but by SIGINT (130) or after a failure (1).
        checkpoint_dir: Where the last checkpoint goes. Default: the folder of the run.
        requeue: "auto": tell SLURM to run the job again if it was asked to by a signal and
            Lightning's `SLURMEnvironment(auto_requeue=True)` is in use; "always": in any job of
            SLURM; "never".
        poll_s: Seconds between two looks at what may stop the run.
    """

    grace_s: float = 25.0
    signals: tuple[str, ...] = ("SIGTERM", "SIGINT", "SIGUSR1")
    exit_code: int = DEFAULT_TERMINATED
    checkpoint_dir: str | None = None
    requeue: Literal["auto", "always", "never"] = "auto"
    poll_s: float = 0.2

    def __post_init__(self) -> None:
        """Validate."""
        if not 0.0 < self.grace_s < math.inf:
            raise ValueError(f"`grace_s` must be > 0 and finite, got {self.grace_s}.")
        object.__setattr__(self, "signals", _checked_signals(self.signals))
        if not 0 <= self.exit_code <= MAX_EXIT_CODE:
            raise ValueError(f"`exit_code` must be in [0, 255], got {self.exit_code}.")
        if self.requeue not in REQUEUE_CHOICES:
            listed = ", ".join(f'"{choice}"' for choice in REQUEUE_CHOICES)
            raise ValueError(f"`requeue` must be one of {listed}, got {self.requeue!r}.")
        if not 0.0 < self.poll_s <= 1.0:
            raise ValueError(f"`poll_s` must be in (0, 1], got {self.poll_s}.")

    def exit_code_of(self, cause: StopCause) -> int:
        """Return the exit code of a run that was stopped by `cause`."""
        return self.exit_code if cause.exit_code == DEFAULT_TERMINATED else cause.exit_code


def _checked_signals(names: object) -> tuple[str, ...]:
    given = tuple(names) if isinstance(names, list | tuple) else (names,)
    strangers = [name for name in given if name not in SIGNAL_CAUSES]
    if strangers:
        raise ValueError(
            f"`signals` must be names among {', '.join(SIGNAL_CAUSES)}, got {strangers[0]!r}."
        )
    return tuple(name for name in given if hasattr(signal, str(name)))  # not all are on Windows


@dataclass(frozen=True, kw_only=True)
class StopBudget:
    """The time that a stop has, in seconds of a monotonic clock.

    Attributes:
        began: When it was asked for.
        last_call: When ranks that have not met by then are not waited for any more.
        t_end: When the process ends, whatever it does.
    """

    began: float
    last_call: float
    t_end: float

    def remaining_s(self, now: float) -> float:
        """Return the seconds that are left."""
        return max(0.0, self.t_end - now)


class StopAction(enum.Enum):
    """What a rank that was asked to stop does next."""

    LEAVE = "leave"  # nothing was trained
    FINISH = "finish"  # let the validation end, then meet
    MEET = "meet"  # with the others, at the next boundary of a step
    SOLO = "solo"  # save without them
    EXIT = "exit"  # at once


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Where a rank is when it decides.

    Attributes:
        now: In seconds of the clock of the budget.
        has_trained: Whether there is anything to save.
        left_s: What a validation still takes; `None` outside of one.
    """

    now: float
    has_trained: bool
    left_s: float | None = None


class Progress:
    """How far something is that takes many steps of about the same time.

    Args:
        total: Number of steps.
        clock: Seconds that only grow.

    Attributes:
        done: Steps that are over.
    """

    def __init__(self, total: float = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self._total, self._clock, self._began = total, clock, clock()
        self.done = 0

    def left_s(self) -> float:
        """Return the seconds that it still takes, at the pace so far."""
        per_step = (self._clock() - self._began) / max(self.done, 1)
        return per_step * max(self._total - self.done, 0.0)


def estimated_save_s(p95_s: float | None, num_bytes: int) -> float:
    """Return how long a checkpoint takes: as measured, else by its size and at least 2 seconds.

    Args:
        p95_s: What 95 % of the checkpoints took at most; `None` if there was none.
        num_bytes: Size of the state.
    """
    return p95_s if p95_s is not None else max(MIN_SAVE_S, num_bytes / BYTES_PER_S)


def plan_stop(began: float, *, grace_s: float, save_s: float, has_trained: bool) -> StopBudget:
    """Return the time that a stop has.

    The last call leaves 1.5 checkpoints and 3 seconds, but ranks get a quarter of the grace to
    meet, however short it is.

    Args:
        began: When it was asked for.
        grace_s: As of `StopConfig`.
        save_s: What a checkpoint takes.
        has_trained: Whether there is anything to save.
    """
    if not has_trained:
        grace_s = min(grace_s, EARLY_GRACE_S)
    last_call_s = grace_s - (1.5 * save_s + SAVE_MARGIN_S)
    return StopBudget(
        began=began,
        last_call=began + max(last_call_s, SHARE_TO_MEET * grace_s),
        t_end=began + grace_s,
    )


def next_action(budget: StopBudget, moment: Moment) -> StopAction:
    """Return what to do now.

    Args:
        budget: Of the stop.
        moment: Where this rank is.
    """
    if moment.now >= budget.t_end:
        return StopAction.EXIT
    if not moment.has_trained:
        return StopAction.LEAVE
    if moment.now >= budget.last_call:
        return StopAction.SOLO
    if moment.left_s is None:
        return StopAction.MEET
    fits = moment.now + moment.left_s <= budget.last_call
    return StopAction.FINISH if fits else StopAction.SOLO


def lockstep_stop(step: int, step_s: float) -> int:
    """Return the step after which ranks that step together stop: all have heard of it by then.

    Args:
        step: Where rank 0 is.
        step_s: What a step takes.
    """
    notice = math.ceil(LOCKSTEP_NOTICE_S / max(step_s, 1e-4))
    return step + notice + LOCKSTEP_NOTICE_STEPS
