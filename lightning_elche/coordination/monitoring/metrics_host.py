"""The numbers of the machine of a run, looked at when somebody asks."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import psutil

from lightning_elche.coordination.host.cgroups import memory_limits
from lightning_elche.coordination.monitoring.exposition import Samples

__all__ = ["mount_of", "samples_of_host"]


def samples_of_host(folder: Path, root: Path = Path("/")) -> Samples:
    """Return what memory and disk are left; a disk that cannot be asked is left out.

    Args:
        folder: Where checkpoints are written; it need not be there yet.
        root: Where `proc` and `sys` are.
    """
    left = [limit - used for used, limit in memory_limits(root)]
    available = min([psutil.virtual_memory().available, *left])
    samples: Samples = {"memory_available_bytes": {(): max(0, available)}}
    with contextlib.suppress(OSError):
        mount = mount_of(folder)
        samples["disk_free_bytes"] = {(str(mount),): shutil.disk_usage(mount).free}
    return samples


def mount_of(folder: Path) -> Path:
    """Return where the file system of a folder is mounted; the folder need not be there yet."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.is_mount())
