"""What a host is short of, before a task starts there."""

from __future__ import annotations

from pathlib import Path

from lightning_elche.coordination.host.probes import disk_percent, free_bytes, memory_percent
from lightning_elche.coordination.host.thresholds import ThresholdConfig, parse_floor

__all__ = ["shortage"]

ROOT = Path("/")


def shortage(config: ThresholdConfig, folder: Path, *, root: Path = ROOT) -> str:
    """Return what is critical on this host in words, "" if nothing is.

    It is one look: who is refused may ask again. A floor in checkpoints says nothing yet, since
    there is none.

    Args:
        config: What is too little.
        folder: Where the task will write; it need not be there yet.
        root: Where `proc` and `sys` are.
    """
    used_pct = memory_percent(root)
    if config.memory_critical_pct is not None and used_pct > config.memory_critical_pct:
        return f"{used_pct:.0f} % of memory is in use, {config.memory_critical_pct:g} % is critical"
    try:
        full_pct, free = disk_percent(folder), free_bytes(folder)
    except OSError:  # who cannot look says nothing
        return ""
    if config.disk_critical_pct is not None and full_pct > config.disk_critical_pct:
        return f"{full_pct:.0f} % of the disk is full, {config.disk_critical_pct:g} % is critical"
    floor, is_in_checkpoints = parse_floor(config.disk_free)
    if not is_in_checkpoints and free < floor:
        return f"{free / 1e9:.1f} GB of the disk are free, `disk_free` is {config.disk_free}"
    return ""
