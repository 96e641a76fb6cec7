"""A group of processes that gets only part of a core: a slow device, made from a fast one."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CPU_CONTROLLER = Path("/sys/fs/cgroup/cpu")
PERIOD_US = 100_000
REMOVE_ATTEMPTS = 50


def can_limit(controller: Path = CPU_CONTROLLER) -> bool:
    """Return whether groups with a quota can be made here: cgroup v1, and the right to write."""
    return (controller / "cpu.cfs_quota_us").is_file() and os.access(controller, os.W_OK)


@contextmanager
def cpu_group(quota: float, controller: Path = CPU_CONTROLLER) -> Iterator[Path]:
    """Make a group with `quota` of one core, and remove it in the end.

    Yields:
        The file into which a process writes its id to enter. All must have ended before the exit.
    """
    group = controller / f"elche-hetero-{os.getpid()}"
    group.mkdir()
    try:
        (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
        set_quota(group, quota)
        yield group / "cgroup.procs"
    finally:
        remove(group)


def set_quota(group: Path, quota: float) -> None:
    """Give the processes of a group `quota` of one core from now on."""
    (group / "cpu.cfs_quota_us").write_text(str(round(quota * PERIOD_US)))


def remove(group: Path) -> None:
    """Remove a group; for a moment the kernel may still count processes that have ended."""
    for attempt in range(REMOVE_ATTEMPTS):
        try:
            group.rmdir()
        except OSError:  # noqa: PERF203  # the attempt is the point of the loop
            if attempt == REMOVE_ATTEMPTS - 1:
                raise
            time.sleep(0.1)
        else:
            return
