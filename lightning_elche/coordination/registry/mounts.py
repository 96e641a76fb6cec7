"""Which file systems lie on another machine."""

from __future__ import annotations

import os
import re
from pathlib import Path

import psutil

__all__ = ["check_local", "file_system_of", "read_mounts"]

NETWORK = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "glusterfs", "gpfs", "lustre", "nfs"}
    | {"nfs4", "ocfs2", "orangefs", "pvfs2", "smb3", "smbfs", "wekafs", "fuse.ceph", "fuse.gcsfuse"}
    | {"fuse.glusterfs", "fuse.juicefs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs", "webdav"}
)


def check_local(path: Path, mounts: list[tuple[str, str]] | None = None) -> None:
    """Check that a file lies, or would lie, on a disk of this machine.

    Args:
        path: The file.
        mounts: Places and types of file systems. Default: those of this process.

    Raises:
        ValueError: If it does not.
    """
    kind = file_system_of(path, read_mounts() if mounts is None else mounts)
    if kind in NETWORK:
        raise ValueError(
            f"`path` must lie on a disk of this machine, since SQLite's shared memory and locks do "
            f"not hold on others, got {path} on {kind}. Set `ELCHE_COORD_DIR` to a local folder; "
            "for several hosts start `elche coord serve` on one and set `ELCHE_COORD_URL`."
        )


def file_system_of(path: Path, mounts: list[tuple[str, str]]) -> str:
    """Return the type of the file system that a file lies or would lie on, "" if unknown."""
    real = os.path.realpath(path)
    found, longest = "", -1
    for place, kind in mounts:
        if _holds(place, real) and len(place) >= longest:  # the last one hides those before it
            found, longest = kind, len(place)
    return found


def read_mounts() -> list[tuple[str, str]]:
    """Return where each file system is mounted, and of what type it is."""
    try:
        text = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:  # no Linux
        return [(part.mountpoint, part.fstype) for part in psutil.disk_partitions(all=True)]
    rows = [line.split(" ") for line in text.splitlines()]
    return [(_unescaped(row[1]), row[2]) for row in rows if len(row) > 2]


def _holds(place: str, path: str) -> bool:
    return path == place or path.startswith(place.rstrip("/") + "/")


def _unescaped(place: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), place)
