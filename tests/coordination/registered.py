"""Registries of tests: their clock, their processes and their limits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_elche.coordination.breaker import BreakerConfig
from lightning_elche.coordination.registry.capacity import Machine
from lightning_elche.coordination.registry.clock import ClockReading
from lightning_elche.coordination.registry.database import Database
from lightning_elche.coordination.registry.limits import LimitsConfig
from lightning_elche.coordination.registry.liveness import Process
from lightning_elche.coordination.registry.registry import Registry
from lightning_elche.coordination.registry.request import Decision, Request

# As fast as anybody likes: what is not about rates is not to depend on them.
ANY_RATE: dict[str, Any] = {
    "rate_per_min": 1e9,
    "burst": 10**9,
    "cooldown_s": 0.0,
    "window_max": 10**9,
}
HERE, ELSEWHERE = "pid:[1]", "pid:[2]"
GIB = 2**30
MACHINE = Machine(
    gpus=2, gpu_name="NVIDIA A100", vram_bytes=160 * GIB, ram_bytes=64 * GIB, cores=16
)


class FakeHost:
    """A host with clocks that are told what to say, and processes that end when told to."""

    def __init__(self) -> None:
        self.reading = ClockReading(boot="first", monotonic_s=50.0, wall_s=1e9)
        self.ended: set[Process] = set()

    def clock(self) -> ClockReading:
        return self.reading

    def pass_s(self, seconds: float) -> None:
        now = self.reading
        self.reading = replace(
            now, monotonic_s=now.monotonic_s + seconds, wall_s=now.wall_s + seconds
        )

    def set_wall(self, by_s: float) -> None:
        self.reading = replace(self.reading, wall_s=self.reading.wall_s + by_s)

    def restart(self, boot: str, off_s: float) -> None:
        self.reading = ClockReading(boot=boot, monotonic_s=1.0, wall_s=self.reading.wall_s + off_s)

    def is_alive(self, process: Process) -> bool | None:
        if (process.boot, process.pid_namespace) != (self.reading.boot, HERE):
            return None
        return process not in self.ended


def process(pid: int, *, boot: str = "first", namespace: str = HERE) -> Process:
    return Process(pid=pid, started=str(1000 + pid), boot=boot, pid_namespace=namespace)


def make_registry(
    folder: Path,
    host: FakeHost,
    *,
    breaker: BreakerConfig | None = None,
    peak: Any = None,
    target_ratio: float = 0.8,
    **limits: Any,
) -> Registry:
    """A registry as fast as anybody likes; the options override."""
    return Registry(
        Database(folder / "registry.db"),
        limits=LimitsConfig(**{**ANY_RATE, **limits}),
        breaker=breaker,
        clock=host.clock,
        is_alive=host.is_alive,
        draw=lambda: 0.5,
        peak=peak,
        target_ratio=target_ratio,
    )


def ask(registry: Registry, kind: str = "train", pid: int = 1, **options: Any) -> Decision:
    """Ask as process `pid` of host a."""
    held = options.pop("held_by", None) or process(pid)
    return registry.admit(Request(kind=kind, **{"host": "a", "process": held, **options}))


def give(registry: Registry, kind: str = "train", pid: int = 1, **options: Any) -> str:
    """Ask, and return the id of the lease that must be given."""
    decision = ask(registry, kind, pid, **options)
    assert decision.lease is not None, decision
    return decision.lease.id
