"""A log as a file: opened without waiting for anybody, read in blocks of whole lines."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lightning_elche.exceptions import ElCheError

__all__ = ["MAX_LINE_BYTES", "Lines", "UnreadableLog", "open_regular", "read_lines"]

MAX_LINE_BYTES = 1 << 20
# At most `MAX_LINE_BYTES`; what is made of a block still fits into the cache of a core.
BLOCK_BYTES = 1 << 17
COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
}


class UnreadableLog(ElCheError, OSError):
    """A log that is no regular file or no text."""


@dataclass(frozen=True, slots=True)
class Lines:
    """Successive lines of a file.

    Attributes:
        text: With their line ends; only the last line of a file may lack its own.
        offset: Where they begin, in bytes.
        is_too_long: This is the begin of a single line of more than `MAX_LINE_BYTES`.
    """

    text: bytes
    offset: int
    is_too_long: bool = False


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading.

    Raises:
        UnreadableLog: If it is a folder, a pipe or a device, or if it is compressed.
        OSError: If it cannot be opened.
    """
    _check_is_regular(path, os.stat(path))
    # A pipe that takes the place of the file just now must not make us wait for a writer.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    file = os.fdopen(os.open(path, flags), "rb")
    try:
        _check_is_regular(path, os.fstat(file.fileno()))
        _check_is_plain(path, file)
    except BaseException:
        file.close()
        raise
    return file


def read_lines(file: BinaryIO, *, size: int) -> Iterator[Lines]:
    """Yield the first `size` bytes of a file in whole lines, in constant memory."""
    kept, kept_at, position = b"", 0, 0  # the begin of a line whose end has not been read
    while block := file.read(min(BLOCK_BYTES, size - position)):
        first, end = block.find(b"\n") + 1, block.rfind(b"\n") + 1
        if not end:
            kept = (kept + block)[: MAX_LINE_BYTES + 1]
        elif position + first - 1 - kept_at > MAX_LINE_BYTES:
            yield Lines(kept + block[:first], kept_at, is_too_long=True)
            if first < end:
                yield Lines(block[first:end], position + first)
        else:
            yield Lines(kept + block[:end], kept_at)
        if end:
            kept, kept_at = block[end:], position + end
        position += len(block)
    if kept:
        yield Lines(kept, kept_at, is_too_long=position - kept_at > MAX_LINE_BYTES)


def _check_is_regular(path: Path, status: os.stat_result) -> None:
    if stat.S_ISREG(status.st_mode):
        return
    kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
    kind = next((name for is_kind, name in kinds if is_kind(status.st_mode)), "a device")
    raise UnreadableLog(f"`path` must be a regular file, but {path} is {kind}.")


def _check_is_plain(path: Path, file: BinaryIO) -> None:
    begin = file.read(max(map(len, COMPRESSED)))
    file.seek(0)
    for magic, name in COMPRESSED.items():
        if begin.startswith(magic):
            raise UnreadableLog(f"{path} is compressed ({name}): decompress it first.")
