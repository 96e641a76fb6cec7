"""What this host has, as far as processes may use it."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path

import psutil

from lightning_elche.coordination.host.cgroups import cpu_quotas, memory_limits
from lightning_elche.coordination.registry.capacity import Machine

__all__ = ["gpus_in", "read_machine"]

ROOT = Path("/")
QUERY = ("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits")
QUERY_TIMEOUT_S = 10.0
MIB = 2**20


@functools.cache
def read_machine(root: Path = ROOT) -> Machine:
    """Return what this host has; GPUs are those that `nvidia-smi` lists, else those of drivers.

    Args:
        root: Where `proc` and `sys` are.
    """
    limits = [limit for _, limit in memory_limits(root)]
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpus = gpus_in(_ask_driver())
    return Machine(
        gpus=len(gpus) or _num_driven(root),
        gpu_name=gpus[0][0] if gpus else "",
        vram_bytes=sum(size for _, size in gpus),
        ram_bytes=min([psutil.virtual_memory().total, *limits]),
        cores=min([float(cpus or 1), *(quota.cpus for quota in cpu_quotas(root))]),
    )


def gpus_in(listing: str) -> list[tuple[str, int]]:
    """Return names and bytes of memory in what `nvidia-smi` has printed."""
    found = []
    for line in listing.splitlines():
        name, _, mib = line.rpartition(", ")
        if name and mib.strip().isdecimal():  # "[N/A]" where memory is shared with the host
            found.append((name.strip(), int(mib) * MIB))
    return found


def _num_driven(root: Path) -> int:
    """Return how many GPUs the drivers of NVIDIA and AMD show, whatever tools there are."""
    of_nvidia = sum(1 for _ in root.glob("proc/driver/nvidia/gpus/*"))
    nodes = root.glob("sys/class/kfd/kfd/topology/nodes/*/gpu_id")  # those of CPUs have 0
    return of_nvidia + sum(_first_line(node) not in ("", "0") for node in nodes)


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:  # of a GPU that this container may not use
        return ""


def _ask_driver() -> str:
    if shutil.which(QUERY[0]) is None:
        return ""
    try:
        done = subprocess.run(
            QUERY, capture_output=True, text=True, timeout=QUERY_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):  # a driver that does not answer has no GPU for us
        return ""
    return done.stdout
