"""Records of fingerprints as files: one segment for each start or resume of a run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lightning_elche.partition.errors import ReplayFormatError
from lightning_elche.partition.replay import ReplayFingerprint
from lightning_elche.partition.rml import ALGORITHM

__all__ = [
    "FORMAT",
    "ReplaySegment",
    "SegmentWriter",
    "env_differences",
    "join_segments",
    "read_segment",
]

FORMAT = "elche-replay-1"
HEADER_KEYS = frozenset({"format", "algorithm", "scope", "segment", "parent", "env"})
VALUE = re.compile("0x[0-9a-f]{16}")
ENTRY_KEYS = frozenset({"sync_index", "step", "value", "lanes"})


@dataclass(frozen=True, kw_only=True)
class ReplaySegment:
    """The record of a run from one start or resume on.

    Args:
        segment: Its name.
        parent: The segment that it goes on from, if it was resumed.
        scope: What was fingerprinted: "full" or "model".
        env: What the numbers may depend on, such as versions and devices.
        entries: The fingerprints, in order of their steps.
    """

    segment: str
    parent: str | None = None
    scope: str = "full"
    env: Mapping[str, Any] = field(default_factory=dict)
    entries: tuple[ReplayFingerprint, ...] = ()


class SegmentWriter:
    """Writes a segment line by line.

    Args:
        segment: What its first line says; its entries are written, too.
        write: Takes each line, and hands it on before it returns.
    """

    def __init__(self, segment: ReplaySegment, write: Callable[[bytes], object]) -> None:
        self._write = write
        header = {
            "format": FORMAT,
            "algorithm": ALGORITHM,
            "scope": segment.scope,
            "segment": segment.segment,
            "parent": segment.parent,
            "env": dict(segment.env),
        }
        self._line(header)
        for entry in segment.entries:
            self.append(entry)

    def append(self, entry: ReplayFingerprint) -> None:
        """Write a fingerprint."""
        lanes = [_hex(lane) for lane in entry.lanes]
        place = {"sync_index": entry.sync_index, "step": entry.step}
        self._line({**place, "value": _hex(entry.value), "lanes": lanes})

    def _line(self, record: Mapping[str, object]) -> None:
        self._write(json.dumps(record, allow_nan=False).encode() + b"\n")


def read_segment(data: bytes) -> ReplaySegment:
    """Return the segment that a file holds; a last line without its end is dropped.

    Raises:
        ReplayFormatError: If another line is not what it should be.
    """
    lines = data.split(b"\n")[:-1]
    if not lines:
        raise ReplayFormatError(1, "the first line is missing or has no end")
    header = _header(lines[0])
    entries = tuple(_entries(lines[1:]))
    return ReplaySegment(
        segment=header["segment"],
        parent=header["parent"],
        scope=header["scope"],
        env=header["env"],
        entries=entries,
    )


def join_segments(segments: Mapping[str, ReplaySegment], last: str) -> list[ReplayFingerprint]:
    """Return the record of a run that was resumed: that of its last segment and of all before.

    What a segment repeats of its parent stands instead of it.

    Args:
        segments: The segments by name.
        last: Name of the last one.

    Raises:
        ReplayFormatError: If a parent is missing, or among its own descendants.
    """
    entries: list[ReplayFingerprint] = []
    name: str | None = last
    seen: set[str] = set()
    while name is not None:
        if name not in segments or name in seen:
            reason = "is its own ancestor" if name in seen else "is missing"
            raise ReplayFormatError(1, f"segment {name!r} {reason}")
        seen.add(name)
        start = entries[0].step if entries else None
        own = segments[name].entries
        entries[:0] = [entry for entry in own if start is None or entry.step < start]
        name = segments[name].parent
    return entries


def env_differences(
    expected: Mapping[str, object], actual: Mapping[str, object]
) -> dict[str, tuple[object, object]]:
    """Return the expected and actual value of each entry in which environments differ."""
    keys = [*expected, *(key for key in actual if key not in expected)]
    pairs = {key: (expected.get(key), actual.get(key)) for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def _hex(value: int) -> str:
    return f"{value:#018x}"


def _header(line: bytes) -> dict[str, Any]:
    header = _record(line, 1, HEADER_KEYS)
    known = {"format": FORMAT, "algorithm": ALGORITHM}
    for key, value in known.items():
        if header[key] != value:
            raise ReplayFormatError(1, f"`{key}` must be {value!r}, got {header[key]!r}")
    parent = header["parent"]
    texts = [header["scope"], header["segment"], "" if parent is None else parent]
    if not all(isinstance(text, str) for text in texts) or not isinstance(header["env"], dict):
        raise ReplayFormatError(1, "`scope`, `segment` and `parent` must be text, `env` an object")
    return header


def _entries(lines: Sequence[bytes]) -> Iterator[ReplayFingerprint]:
    last = 0
    for number, line in enumerate(lines, start=2):
        entry = _entry(_record(line, number, ENTRY_KEYS), number)
        if entry.step < last:
            raise ReplayFormatError(number, f"step {entry.step} comes after step {last}")
        last = entry.step
        yield entry


def _record(line: bytes, number: int, keys: frozenset[str]) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as err:
        raise ReplayFormatError(number, "it is no JSON") from err
    if not isinstance(record, dict) or record.keys() != keys:
        raise ReplayFormatError(number, f"it must be an object of {', '.join(sorted(keys))}")
    return record


def _entry(record: dict[str, Any], number: int) -> ReplayFingerprint:
    lanes = record["lanes"]
    if not isinstance(lanes, list) or len(lanes) != 2:
        raise ReplayFormatError(number, f"`lanes` must be two values, got {lanes!r}")
    value, lane0, lane1 = (_value(text, number) for text in (record["value"], *lanes))
    for key in ("step", "sync_index"):
        if type(record[key]) is not int or record[key] < 0:
            raise ReplayFormatError(number, f"`{key}` must be an integer >= 0, got {record[key]!r}")
    return ReplayFingerprint(record["step"], value, (lane0, lane1), record["sync_index"])


def _value(text: object, number: int) -> int:
    if not isinstance(text, str) or not VALUE.fullmatch(text):
        raise ReplayFormatError(number, f"a value must be 0x and 16 digits, got {text!r}")
    return int(text, 16)
