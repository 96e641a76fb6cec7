"""The last line of a log whose writer was killed: completed, or cut off before more is appended."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import BinaryIO

__all__ = ["complete_last_line", "cut_torn_tail", "is_record", "torn_tail"]

BLOCK_BYTES = 1 << 16


def torn_tail(path: Path) -> bytes | None:
    """Return what stands behind the last line end; `None` if nothing does or no file is there."""
    if not path.exists():
        return None
    with path.open("rb") as file:
        file.seek(_end_of_lines(file))
        return file.read() or None


def cut_torn_tail(path: Path) -> bytes | None:
    """Cut a log behind its last line end, and return what was cut off.

    A record that only lacks its line end is not cut off: it gets one.
    """
    complete_last_line(path)
    tail = torn_tail(path)
    if tail is not None:
        os.truncate(path, path.stat().st_size - len(tail))
    return tail


def complete_last_line(path: Path) -> None:
    """Give the last line its end if that is all it lacks."""
    tail = torn_tail(path)
    if tail is not None and is_record(tail):
        with path.open("ab") as file:
            file.write(b"\n")


def is_record(tail: bytes) -> bool:
    """Return whether a last line is complete but for its line end."""
    try:
        return isinstance(json.loads(tail), dict)
    except (ValueError, RecursionError):
        return False


def _end_of_lines(file: BinaryIO) -> int:
    """Return the offset behind the last line end, searched from the end of the file."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(end - BLOCK_BYTES, 0)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
