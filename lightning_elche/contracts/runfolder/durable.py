"""Files that are whole after a crash: the old content or the new one, never half of it."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["rename_durably", "sync_file", "sync_folder", "write_durably"]


def sync_file(path: Path) -> None:
    """Wait until the content of a file is on the disk."""
    _sync(path, os.O_RDONLY)


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    _sync(path, os.O_RDONLY | os.O_DIRECTORY)


def rename_durably(temp: Path, path: Path) -> None:
    """Give a finished file its name, once its content is on the disk."""
    sync_file(temp)
    temp.replace(path)
    sync_folder(path.parent)


def write_durably(path: Path, content: bytes) -> None:
    """Replace a file, or make it and its folder; nobody ever sees a part of `content`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temp = path.with_name(f"{path.name}.tmp")
    temp.write_bytes(content)
    rename_durably(temp, path)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
