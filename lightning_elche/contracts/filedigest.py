"""Digests of files that may be large."""

from __future__ import annotations

import hashlib
from pathlib import Path

__all__ = ["sha256_of_file"]

BLOCK_BYTES = 1 << 20


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file, read in constant memory.

    Raises:
        OSError: If it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
