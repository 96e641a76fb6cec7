"""The registry that a configuration means: the file of this machine, or that of another one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from lightning_elche.coordination.config import CoordinationConfig
from lightning_elche.coordination.registry.client import RemoteRegistry
from lightning_elche.coordination.registry.database import Database
from lightning_elche.coordination.registry.registry import Registry
from lightning_elche.coordination.schedule.peak import PeakHours
from lightning_elche.coordination.schedule.schedule import ScheduleConfig

__all__ = ["DATABASE_NAME", "AnyRegistry", "local_registry", "open_registry"]

DATABASE_NAME = "registry.db"
PERCENT = 100.0

AnyRegistry: TypeAlias = Registry | RemoteRegistry


def open_registry(config: CoordinationConfig) -> AnyRegistry:
    """Return the registry that all options together mean; a remote one is not asked yet.

    Args:
        config: With a folder, as `completed` gives it one.

    Raises:
        ValueError: If its file would lie on another machine.
        RuntimeError: If the file was written by a newer version.
    """
    place = config.registry
    if place.url is not None:
        return RemoteRegistry(place.url, place.token)
    return local_registry(config)


def local_registry(config: CoordinationConfig) -> Registry:
    """Return the registry of this machine, whatever `url` says."""
    folder = config.registry.folder
    if folder is None:
        raise ValueError("`folder` must be a path, got None. Call `completed` of the config.")
    return Registry(
        Database(Path(folder) / DATABASE_NAME),
        limits=config.limits,
        breaker=config.breaker,
        peak=_peak_of(config.schedule),
        target_ratio=config.targets.max_pct / PERCENT,
    )


def _peak_of(schedule: ScheduleConfig) -> Callable[[float, float], float] | None:
    """Return what tells a registry how long peak hours keep a task from starting."""
    if schedule.peak is None or schedule.peak_policy != "wait":
        return None
    hours = PeakHours.parse(schedule.peak)

    def wait_s(now: float, duration_s: float) -> float:
        if not hours.overlaps(now, duration_s):
            return 0.0
        begin_s = hours.seconds_until(now, is_peak=True)
        return begin_s + hours.seconds_until(now + begin_s, is_peak=False)

    return wait_s
