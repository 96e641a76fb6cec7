"""What a process sees of its machine, or of the part of it that its control group leaves it."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from lightning_elche.coordination.host.cgroups import cpu_quotas, memory_limits

__all__ = ["CpuProbe", "disk_percent", "free_bytes", "load_per_cpu", "memory_percent"]

ROOT = Path("/")


def memory_percent(root: Path = ROOT) -> float:
    """Return how much of the memory that this process may use is in use, by whomever.

    What is fullest counts: the machine, or a control group that limits this process.

    Args:
        root: Where `proc` and `sys` are.
    """
    machine = psutil.virtual_memory()
    percents = [100.0 * (1.0 - machine.available / machine.total)]
    percents += [
        100.0 * used / limit for used, limit in memory_limits(root) if limit < machine.total
    ]
    return max(percents)


def free_bytes(folder: Path) -> int:
    """Return the space that is left to this user on the disk of a folder.

    Args:
        folder: It need not be there yet.

    Raises:
        OSError: If that cannot be told.
    """
    return shutil.disk_usage(_existing(folder)).free


def disk_percent(folder: Path) -> float:
    """Return how much of the disk of a folder is in use.

    Args:
        folder: It need not be there yet.

    Raises:
        OSError: If that cannot be told.
    """
    usage = shutil.disk_usage(_existing(folder))
    return 100.0 * usage.used / (usage.used + usage.free)


def load_per_cpu() -> float:
    """Return the load average of the last minute for each CPU of the machine."""
    return os.getloadavg()[0] / (os.cpu_count() or 1)


class CpuProbe:
    """How busy the CPUs were since the last look.

    Those of the machine, or those that a control group with a quota leaves us, since that is what
    there is to share.

    Args:
        root: Where `proc` and `sys` are.
        clock: Seconds that only grow.
    """

    def __init__(self, root: Path = ROOT, *, clock: Callable[[], float] = time.monotonic) -> None:
        cpus = os.cpu_count() or 1
        quota = next((quota for quota in cpu_quotas(root) if quota.cpus < cpus), None)
        # Busy and all seconds of a CPU so far. Not `psutil.cpu_percent`, which remembers its last
        # look by thread, and for every caller in it.
        self._count = _machine if quota is None else lambda: (quota.used_s(), clock() * quota.cpus)
        self._last = self._count()

    def percent(self) -> float:
        """Return the utilization, 0 to 100."""
        (was_busy, before), self._last = self._last, self._count()
        busy, now = self._last
        return (
            min(max(100.0 * (busy - was_busy) / (now - before), 0.0), 100.0)
            if now > before
            else 0.0
        )


def _machine() -> tuple[float, float]:
    times = psutil.cpu_times()
    # Linux counts guests in `user` as well.
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return total - times.idle - getattr(times, "iowait", 0.0), total


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that is there."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())
