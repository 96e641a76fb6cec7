"""Watches what a run must not use up on its machine: disk, memory, and how busy it is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

__all__ = ["ThresholdConfig"]

ACTIONS = ("alert", "pause", "stop")
PAIRS = ("memory", "cpu", "gpu", "disk")


@dataclass(frozen=True, kw_only=True)
class ThresholdConfig:
    """What is too little or too much on the machine of a run.

    Disk and memory can end a run, so their critical levels may act. The others only alert, since
    training is meant to keep its devices busy.

    Args:
        disk_free: What must stay free where checkpoints are saved: a number of the last
            checkpoint, such as "2x_checkpoint", or of bytes, such as "20GB".
        memory_warn_pct: Percent of the memory that this process may use.
        memory_critical_pct: As above.
        cpu_warn_pct: Utilization; `None` for no limit.
        cpu_critical_pct: As above.
        gpu_warn_pct: As above.
        gpu_critical_pct: As above.
        disk_warn_pct: Percent of the disk that is used; `None` for no limit.
        disk_critical_pct: As above.
        load_per_cpu: Load average of a minute for each CPU; `None` for no limit.
        hysteresis_pct: A level is left this much below where it was entered.
        samples: Looks in a row that it takes to enter or leave a level.
        period_s: Seconds between two looks.
        on_critical: What follows from too little disk or memory: an "alert", or all ranks "pause"
            at the next averaging event until there is enough again, or "stop" with a checkpoint.
    """

    disk_free: str = "2x_checkpoint"
    memory_warn_pct: float | None = 85.0
    memory_critical_pct: float | None = 95.0
    cpu_warn_pct: float | None = None
    cpu_critical_pct: float | None = None
    gpu_warn_pct: float | None = None
    gpu_critical_pct: float | None = None
    disk_warn_pct: float | None = None
    disk_critical_pct: float | None = None
    load_per_cpu: float | None = None
    hysteresis_pct: float = 3.0
    samples: int = 3
    period_s: float = 1.0
    on_critical: Literal["alert", "pause", "stop"] = "alert"

    def __post_init__(self) -> None:
        """Validate."""
        parse_floor(self.disk_free)
        for name in PAIRS:
            _check_pair(name, *self.limits(name))
        if self.load_per_cpu is not None and not self.load_per_cpu > 0.0:
            raise ValueError(f"`load_per_cpu` must be > 0 or None, got {self.load_per_cpu}.")
        if not 0.0 <= self.hysteresis_pct < 100.0:
            raise ValueError(f"`hysteresis_pct` must be in [0, 100), got {self.hysteresis_pct}.")
        if self.samples < 1:
            raise ValueError(f"`samples` must be >= 1, got {self.samples}.")
        if not self.period_s > 0.0:
            raise ValueError(f"`period_s` must be > 0, got {self.period_s}.")
        if self.on_critical not in ACTIONS:
            raise ValueError(f"`on_critical` must be one of {ACTIONS}, got {self.on_critical!r}.")

    def limits(self, name: str) -> tuple[float | None, float | None]:
        """Return the percentages from which "memory", "cpu", "gpu" or "disk" warns, is critical."""
        return getattr(self, f"{name}_warn_pct"), getattr(self, f"{name}_critical_pct")

    @classmethod
    def polite(cls) -> ThresholdConfig:
        """Return limits for a machine that others use as well: alerts long before it is full."""
        return cls(
            memory_warn_pct=70.0,
            memory_critical_pct=80.0,
            cpu_warn_pct=70.0,
            cpu_critical_pct=80.0,
            gpu_warn_pct=70.0,
            gpu_critical_pct=80.0,
            disk_warn_pct=65.0,
            disk_critical_pct=70.0,
            load_per_cpu=1.5,
        )


FLOOR = re.compile(r"(\d+(?:\.\d+)?) ?(x_checkpoint|[KMGT]?B)")
UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def parse_floor(text: str) -> tuple[float, bool]:
    """Return the number in a `disk_free`, and whether it counts checkpoints instead of bytes.

    Raises:
        ValueError: If it is not one.
    """
    match = FLOOR.fullmatch(text)
    if match is None:
        raise ValueError(
            "`disk_free` must be a number of checkpoints such as '2x_checkpoint', or of bytes such "
            f"as '20GB', got {text!r}."
        )
    number, unit = float(match[1]), match[2]
    return (number, True) if unit == "x_checkpoint" else (number * UNITS[unit], False)


def _check_pair(name: str, warn: float | None, critical: float | None) -> None:
    for kind, value in (("warn", warn), ("critical", critical)):
        if value is not None and not 0.0 < value <= 100.0:
            raise ValueError(f"`{name}_{kind}_pct` must be in (0, 100] or None, got {value}.")
    if warn is not None and critical is not None and warn > critical:
        raise ValueError(
            f"`{name}_warn_pct` must be <= `{name}_critical_pct` ({critical}), got {warn}."
        )
