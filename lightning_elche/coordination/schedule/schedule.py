"""When a run must be over, and when long ones should not run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from lightning_elche.coordination.schedule.deadline import parse_deadline
from lightning_elche.coordination.schedule.durations import DEFAULT_DURATIONS_S
from lightning_elche.coordination.schedule.peak import PeakHours

__all__ = ["ScheduleConfig"]

POLICIES = ("warn", "wait", "throttle")


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """When a run must be over, and when long ones should not run.

    Args:
        deadline: "slurm" for the end of the SLURM job, if this is one; or a time such as
            "2026-03-01T06:00:00+01:00"; or `None`.
        margin_s: Seconds to spare before the deadline, beside what a checkpoint and a window take.
        peak: Begin, end and time zone of the hours in which others need the machine, such as
            `["14:00", "22:00", "UTC"]`; `None` if there are none.
        peak_policy: What a run does that would last into them: "warn", "wait" with its start until
            they are over, or "throttle" itself while they last.
        defaults_s: How long a run of a kind takes, as long as none was measured. Kinds that are not
            in it keep their default.
    """

    deadline: str | None = "slurm"
    margin_s: float = 5.0
    peak: Sequence[str] | None = None
    peak_policy: Literal["warn", "wait", "throttle"] = "warn"
    defaults_s: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_DURATIONS_S))

    def __post_init__(self) -> None:
        """Validate."""
        if self.deadline not in (None, "slurm"):
            parse_deadline(self.deadline)
        if not self.margin_s >= 0.0:
            raise ValueError(f"`margin_s` must be >= 0, got {self.margin_s}.")
        if self.peak is not None:
            PeakHours.parse(self.peak)
        if self.peak_policy not in POLICIES:
            raise ValueError(f"`peak_policy` must be one of {POLICIES}, got {self.peak_policy!r}.")
        for kind, seconds in self.defaults_s.items():
            if not seconds > 0.0:
                raise ValueError(f"`defaults_s` must hold numbers > 0, got {seconds} for {kind!r}.")
