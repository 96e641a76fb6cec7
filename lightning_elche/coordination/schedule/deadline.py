"""When a run has to stop, so that its last checkpoint is complete before its time is up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from lightning_elche.coordination.schedule.measured import Measured

__all__ = ["Deadline", "checkpoint_reserve_s", "find_deadline", "parse_deadline"]

SAFETY = 1.5
ENOUGH_WINDOWS = 3
UNMEASURED_BYTES_PER_S = 200e6
UNMEASURED_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Deadline:
    """A moment by which a run must be over.

    Attributes:
        end: Seconds since 1970.
        reason: Whose moment it is, in words.
        margin_s: Seconds to spare.
    """

    end: float
    reason: str
    margin_s: float = 5.0

    def due_at(
        self,
        *,
        checkpoints: Measured,
        windows: Measured,
        under_way_s: float = 0.0,
        checkpoint_bytes: int = 0,
    ) -> float:
        """Return when to stop, in seconds since 1970.

        Args:
            checkpoints: Seconds that saving one took.
            windows: Seconds between averaging events, or steps where there are none.
            under_way_s: For how long the present window has lasted.
            checkpoint_bytes: Size of a checkpoint, as long as none was timed.
        """
        checkpoint_s = checkpoint_reserve_s(checkpoints, checkpoint_bytes)
        window_s = windows.p95
        if windows.count < ENOUGH_WINDOWS:
            window_s = 2.0 * max(windows.longest, under_way_s)
        return self.end - SAFETY * (checkpoint_s + window_s) - self.margin_s


def checkpoint_reserve_s(checkpoints: Measured, num_bytes: int) -> float:
    """Return how long a checkpoint may take, by the size of one if none was timed.

    Args:
        checkpoints: Seconds that saving one took.
        num_bytes: Size of a checkpoint.
    """
    if checkpoints.count:
        return checkpoints.p95
    return max(UNMEASURED_S, num_bytes / UNMEASURED_BYTES_PER_S)


def find_deadline(
    setting: str | None, env: Mapping[str, str], *, margin_s: float = 5.0
) -> Deadline | None:
    """Return the deadline that a configuration means, `None` if there is none.

    Args:
        setting: As `ScheduleConfig.deadline`.
        env: Variables of the environment.
        margin_s: Seconds to spare.

    Raises:
        ValueError: If it, or what SLURM says, is no moment.
    """
    if setting is None:
        return None
    if setting != "slurm":
        return Deadline(end=parse_deadline(setting), reason=setting, margin_s=margin_s)
    text = env.get("SLURM_JOB_END_TIME")
    if text is None:
        return None
    if not text.isdecimal():
        raise ValueError(
            f"`SLURM_JOB_END_TIME` must be seconds since 1970, got {text!r}. Set `deadline` to a "
            "time, or to null."
        )
    reason = f"the end of SLURM job {env.get('SLURM_JOB_ID', '?')}"
    return Deadline(end=float(text), reason=reason, margin_s=margin_s)


def parse_deadline(text: object) -> float:
    """Return the seconds since 1970 of a moment.

    Raises:
        ValueError: If it is none, or has no time zone.
    """
    try:
        if not isinstance(text, str):
            raise ValueError("no text")
        # Python 3.10 does not know the Z.
        moment = datetime.fromisoformat(f"{text[:-1]}+00:00" if text.endswith("Z") else text)
        if moment.tzinfo is None:
            raise ValueError("no time zone")
    except ValueError as err:
        raise ValueError(
            "`deadline` must be 'slurm', None, or a time with its zone such as "
            f"'2026-03-01T06:00:00+01:00', got {text!r} ({err})."
        ) from err
    return moment.timestamp()
