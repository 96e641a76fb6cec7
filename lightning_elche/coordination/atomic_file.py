"""Small files that others read while they are written anew."""

from __future__ import annotations

import os
import threading
from pathlib import Path

__all__ = ["replace_file"]


def replace_file(path: Path, content: bytes) -> None:
    """Give a file new content at once; it is not waited for until that is on the disk.

    Raises:
        OSError: If the folder does not exist or cannot be written to.
    """
    temp = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        temp.write_bytes(content)
        temp.replace(path)
    except OSError:
        temp.unlink(missing_ok=True)
        raise
