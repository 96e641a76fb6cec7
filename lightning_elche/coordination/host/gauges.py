"""What is looked at on the machine of a run, and from where on it is too much."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lightning_elche.coordination.host.levels import LevelWatch
from lightning_elche.coordination.host.probes import (
    CpuProbe,
    disk_percent,
    free_bytes,
    load_per_cpu,
    memory_percent,
)
from lightning_elche.coordination.host.thresholds import ThresholdConfig, parse_floor

__all__ = ["ACTING", "DISK_FREE", "Gauge", "gauges_of"]

DISK_FREE = "disk_free_bytes"
ACTING = frozenset({DISK_FREE, "memory_pct", "disk_pct"})  # what can end a run


@dataclass(frozen=True, kw_only=True)
class Gauge:
    """A number of the machine.

    Attributes:
        name: Such as "memory_pct".
        read: Returns it; `None` if it has no meaning yet. Any error means that it is unknown.
        watch: Says how bad it is.
        pressure: Returns, of the number, what the watch judges; it grows as things get worse.
    """

    name: str
    read: Callable[[], float | None]
    watch: LevelWatch
    pressure: Callable[[float], float]


def gauges_of(
    config: ThresholdConfig,
    *,
    folder: Callable[[], Path],
    checkpoint_bytes: Callable[[], int],
    gpu: Callable[[], float | None] | None,
) -> Iterator[Gauge]:
    """Yield what a configuration wants to be looked at; disk and memory in any case.

    Args:
        config: Limits.
        folder: Returns where checkpoints are saved.
        checkpoint_bytes: Returns the size of the last one, 0 if there was none.
        gpu: Returns the utilization of a GPU in percent; `None` if there is none.
    """
    number, counts_checkpoints = parse_floor(config.disk_free)

    def floor_pct(free: float) -> float:
        floor = number * checkpoint_bytes() if counts_checkpoints else number
        return 100.0 * floor / max(free, 1.0)

    yield Gauge(
        name=DISK_FREE,
        read=lambda: free_bytes(folder()),
        watch=_watch(config, None, 100.0),
        pressure=floor_pct,
    )
    percents: dict[str, Callable[[], float | None] | None] = {
        "memory": memory_percent,
        "disk": lambda: disk_percent(folder()),
        "cpu": CpuProbe().percent,
        "gpu": gpu,
    }
    for name, read in percents.items():
        if read is not None:
            watch = _watch(config, *config.limits(name))
            yield Gauge(name=f"{name}_pct", read=read, watch=watch, pressure=_as_it_is)
    if config.load_per_cpu is not None:
        yield Gauge(
            name="load_per_cpu",
            read=load_per_cpu,
            watch=_watch(config, None, 100.0),
            pressure=_percent_of(config.load_per_cpu),
        )


def _watch(config: ThresholdConfig, warn: float | None, critical: float | None) -> LevelWatch:
    return LevelWatch(
        warn=warn, critical=critical, hysteresis=config.hysteresis_pct, samples=config.samples
    )


def _as_it_is(value: float) -> float:
    return value


def _percent_of(limit: float) -> Callable[[float], float]:
    return lambda value: 100.0 * value / limit
