"""How many tasks of a kind a host has room for."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Machine", "Peaks", "capacity", "moved_slots"]

# Tasks per GPU while nobody has measured one, by a part of its name; the first that fits counts.
PER_GPU = (
    *(("GH200", 48), ("H100", 24), ("H200", 24), ("A100", 16), ("L40", 16)),
    *(("4090", 10), ("4080", 8), ("3070", 4)),
)
PER_OTHER_GPU = 4
USABLE_RATIO = 0.9  # of memory
GUESSED_RAM_BYTES = 2 * 2**30
TASKS_PER_CORE = 0.5
MOVE_EVERY_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a host has; 0 and "" where that is not known.

    Attributes:
        gpus: How many; 0 means none where the cores are known.
        gpu_name: Of the first.
        vram_bytes: Memory of all of them together.
        ram_bytes: Memory that processes may use: the machine's, or what a cgroup limits it to.
        cores: The same of CPU cores.
    """

    gpus: int = 0
    gpu_name: str = ""
    vram_bytes: int = 0
    ram_bytes: int = 0
    cores: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Peaks:
    """What former tasks of a kind used at most; `None` where nobody has measured it.

    Attributes:
        vram_bytes: GPU memory, in all but a tenth of them.
        ram_bytes: The same of memory.
        cores: The mean of CPU cores.
    """

    vram_bytes: int | None = None
    ram_bytes: int | None = None
    cores: float | None = None


def capacity(machine: Machine, peaks: Peaks | None = None, *, needs_gpu: bool = True) -> int | None:
    """Return how many tasks a machine has room for, `None` if nothing is known of it.

    A guess allows at least one.

    Args:
        machine: What it has.
        peaks: What a task uses.
        needs_gpu: Whether it uses GPUs at all.

    Example:
        >>> machine = Machine(gpus=2, gpu_name="NVIDIA A100", ram_bytes=2**38, cores=128)
        >>> capacity(machine), capacity(machine, Peaks(cores=8.0))
        (32, 16)
    """
    peaks = peaks or Peaks()
    rooms = []
    if needs_gpu and machine.gpus:
        if peaks.vram_bytes and machine.vram_bytes:
            per_gpu = USABLE_RATIO * machine.vram_bytes / machine.gpus
            rooms.append(machine.gpus * math.floor(per_gpu / peaks.vram_bytes))
        else:
            rooms.append(machine.gpus * _per_gpu(machine.gpu_name))
    if machine.ram_bytes:
        usable = USABLE_RATIO * machine.ram_bytes
        if peaks.ram_bytes:
            rooms.append(math.floor(usable / peaks.ram_bytes))
        else:
            rooms.append(max(1, math.floor(usable / GUESSED_RAM_BYTES)))
    if machine.cores:
        if peaks.cores:
            rooms.append(max(1, math.floor(machine.cores / peaks.cores)))
        else:
            rooms.append(max(1, math.floor(machine.cores * TASKS_PER_CORE)))
    return min(rooms, default=None)


def moved_slots(
    slots: int,
    *,
    utilization_pct: float,
    bounds: tuple[int, int],
    since_s: float,
    up_below_pct: float = 55.0,
    down_above_pct: float = 85.0,
) -> int:
    """Return how many tasks a host may have next, when their number follows its utilization.

    Args:
        slots: How many now.
        utilization_pct: Of the host.
        bounds: The fewest and the most.
        since_s: Seconds since the number was last changed; it stays for 30.
        up_below_pct: One more is allowed below this.
        down_above_pct: One less above this.
    """
    low, high = bounds
    if since_s >= MOVE_EVERY_S:
        slots += (utilization_pct < up_below_pct) - (utilization_pct > down_above_pct)
    return max(low, min(high, slots))


def _per_gpu(name: str) -> int:
    return next((count for part, count in PER_GPU if part in name), PER_OTHER_GPU)
