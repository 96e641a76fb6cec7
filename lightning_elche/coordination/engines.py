"""What starts and restarts runs here: a scheduler, an orchestrator, a service manager."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import ModuleType

__all__ = ["GRACE_S", "Engine", "find_engines", "grace_warnings"]


class Engine(enum.Enum):
    """Something that places, restarts or ends processes, and that a run leaves this to."""

    SLURM = "SLURM_JOB_ID"
    KUBERNETES = "KUBERNETES_SERVICE_HOST"
    TORCHRUN = "TORCHELASTIC_RUN_ID"
    SYSTEMD = "NOTIFY_SOCKET"
    RAY = "ray"

    @property
    def places_runs(self) -> bool:
        """Whether it decides which run starts where, so that nobody else should."""
        return self in (Engine.SLURM, Engine.KUBERNETES, Engine.RAY)


# Seconds from SIGTERM to SIGKILL, where the engine has a constant of its own for them.
GRACE_S = {Engine.SLURM: 30.0, Engine.KUBERNETES: 30.0, Engine.TORCHRUN: 30.0, Engine.SYSTEMD: 90.0}
LONGER = {
    Engine.SLURM: "raise `KillWait` in slurm.conf",
    Engine.KUBERNETES: "raise `terminationGracePeriodSeconds` of the pod",
    Engine.TORCHRUN: "there is no option of torchrun that makes it wait longer",
    Engine.SYSTEMD: "raise `TimeoutStopSec` of the unit",
}


def find_engines(
    environment: Mapping[str, str], modules: Mapping[str, ModuleType]
) -> frozenset[Engine]:
    """Return the engines that this process runs under.

    Args:
        environment: As `os.environ`.
        modules: As `sys.modules`; Ray counts if it was imported and initialised.
    """
    found: set[Engine] = {
        one for one in Engine if one is not Engine.RAY and environment.get(one.value)
    }
    ray = modules.get(Engine.RAY.value)
    is_initialized = getattr(ray, "is_initialized", None)
    if is_initialized is not None and is_initialized():
        found.add(Engine.RAY)
    return frozenset(found)


def grace_warnings(engines: frozenset[Engine], grace_s: float) -> tuple[str, ...]:
    """Return one sentence for each engine that kills a process before its grace is over.

    Args:
        engines: Those that were found.
        grace_s: Seconds that a run takes to end at most, as in `StopConfig`.
    """
    return tuple(
        f"`grace_s` must be < {GRACE_S[one]:g}, the seconds that {one.name} waits by default "
        f"between SIGTERM and SIGKILL, got {grace_s:g}. Lower it, or {LONGER[one]}."
        for one in Engine
        if one in engines and one in GRACE_S and grace_s >= GRACE_S[one]
    )
