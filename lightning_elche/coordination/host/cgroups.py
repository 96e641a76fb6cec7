"""The control groups of Linux, version 1 and 2, as far as they limit this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

__all__ = ["Quota", "cpu_quotas", "memory_limits"]

UNLIMITED_BYTES = 1 << 60  # what version 1 shows for no limit is a little less than 2**63


class Quota(NamedTuple):
    """A number of CPUs that a group may use.

    Attributes:
        cpus: How many, in full.
        used_s: Returns the seconds of one CPU that the group has used.
    """

    cpus: float
    used_s: Callable[[], float]


class _Group(NamedTuple):
    version: int
    folder: Path
    accounts: Path  # of version 1, where the CPU time of the group is counted


def memory_limits(root: Path) -> Iterator[tuple[int, int]]:
    """Yield bytes in use and limit of each group above this process that has one.

    Files that the kernel would drop are not in use.

    Args:
        root: Where `proc` and `sys` are.
    """
    for group in _groups(root, "memory"):
        limit_name, used_name, cache_name = (
            ("memory.max", "memory.current", "inactive_file")
            if group.version == 2
            else ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        )
        try:
            limit, used = _read(group.folder / limit_name), int(_read(group.folder / used_name))
            stat = _read(group.folder / "memory.stat").split()
        except OSError:  # the root of version 2 has none
            continue
        if limit.isdecimal() and int(limit) < UNLIMITED_BYTES:
            cache = int(stat[stat.index(cache_name) + 1]) if cache_name in stat else 0
            yield max(used - cache, 0), int(limit)


def cpu_quotas(root: Path) -> Iterator[Quota]:
    """Yield the quota of each group above this process that has one.

    Args:
        root: Where `proc` and `sys` are.
    """
    for group in _groups(root, "cpu"):
        try:
            if group.version == 2:
                words = _read(group.folder / "cpu.max").split()
                used_s = partial(_used_s_2, group.folder / "cpu.stat")
            else:
                words = [_read(group.folder / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
                used_s = partial(_used_s_1, group.accounts / "cpuacct.usage")
            used_s()
        except OSError:
            continue
        if words[0].isdecimal():  # otherwise "max", or -1
            yield Quota(int(words[0]) / int(words[1]), used_s)


def _groups(root: Path, controller: str) -> Iterator[_Group]:
    """Yield the groups of a controller above this process, its own first.

    Seen from inside a container its path may lie outside of what is mounted there, which then is
    the group itself.
    """
    try:
        lines = _read(root / "proc/self/cgroup").splitlines()
    except OSError:  # no Linux
        return
    mounts = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            version, mount, accounts = 2, mounts, mounts
            if not (mount / "cgroup.controllers").exists():  # version 1 beside it
                mount = mounts / "unified"
        elif controller in controllers.split(","):
            version, mount, accounts = 1, mounts / controller, mounts / "cpuacct"
        else:
            continue
        own = mount / path.lstrip("/")
        for folder in (own, *own.parents):
            if folder.is_dir():
                yield _Group(version, folder, accounts / folder.relative_to(mount))
            if folder == mount:
                break


def _used_s_1(path: Path) -> float:
    return int(_read(path)) / 1e9


def _used_s_2(path: Path) -> float:
    words = _read(path).split()
    return int(words[words.index("usage_usec") + 1]) / 1e6


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip()
