"""Whether a log may hold steps that were done twice, as its first and its last record tell."""

from __future__ import annotations

from collections.abc import Iterable
from typing import BinaryIO

from lightning_elche.contracts.steplog.line import BrokenLine, decode_line

__all__ = ["may_hold_resumes"]

END_BYTES = 1 << 16


def may_hold_resumes(file: BinaryIO, *, size: int) -> bool:
    """Return False only if no step of a log without gaps was done twice.

    Attempts are counted up, so that there was only one if the first and the last are the same. A
    log that does not tell attempts has as many lines as steps; if one of them was done twice all
    the same, another is absent, and the log fails for that. Only for such a log all of it is read.
    """
    num_bytes = min(END_BYTES, size)
    file.seek(0)
    first = _first_record(file.read(num_bytes).split(b"\n"))
    file.seek(size - num_bytes)
    last = _first_record(reversed(file.read(num_bytes).split(b"\n")))
    if first is None or last is None or first[1] != last[1]:
        return True
    return first[1] is None and _num_line_ends(file, size) != last[0] - first[0] + 1


def _first_record(lines: Iterable[bytes]) -> tuple[int, int | None] | None:
    """Return step and attempt of the first line that has a step."""
    for line in lines:
        try:
            record = decode_line(line)
        except BrokenLine:
            continue
        step, attempt = record.get("step"), record.get("attempt")
        if type(step) is int:
            return step, attempt if type(attempt) is int else None
    return None


def _num_line_ends(file: BinaryIO, size: int) -> int:
    file.seek(0)
    num_ends, left = 0, size
    while left > 0 and (block := file.read(min(END_BYTES, left))):
        num_ends += block.count(b"\n")
        left -= len(block)
    return num_ends
