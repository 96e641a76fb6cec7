"""The record of fingerprints of a run, whichever files it is in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_elche.callbacks.replay_files import last_segment
from lightning_elche.partition.errors import PartitionError, ReplayFormatError
from lightning_elche.partition.fs import Fs
from lightning_elche.partition.replay import ReplayFingerprint
from lightning_elche.partition.replay_file import (
    FORMAT,
    ReplaySegment,
    join_segments,
    read_segment,
)
from lightning_elche.partition.rml import ALGORITHM

__all__ = ["REPLAY_FOLDER", "Record", "RecordError", "read_record"]

REPLAY_FOLDER, SUFFIX = "replay", ".jsonl"

Segments = dict[str, ReplaySegment]


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a run has recorded.

    Attributes:
        path: Of its last segment.
        root: Of the checkpoints, if that was given.
        segments: Names of its segments, the last one first.
        missing: Segment that it goes on from and that is not there.
        scope: What was fingerprinted: "full" or "model".
        env: What the numbers may depend on.
        entries: The fingerprints.
    """

    path: Path
    root: Path | None
    segments: tuple[str, ...]
    missing: str | None
    scope: str
    env: Mapping[str, Any]
    entries: tuple[ReplayFingerprint, ...]


class RecordError(PartitionError):
    """A file is not a record that can be read.

    Attributes:
        path: Of the file.
        is_other_format: Whether it may be one of another release.
    """

    def __init__(self, path: Path, message: str, *, is_other_format: bool = False) -> None:
        super().__init__(f"{path}: {message}")
        self.path = path
        self.is_other_format = is_other_format


def read_record(fs: Fs, path: Path) -> Record:
    """Return the record of a run, with the segments that its last one goes on from.

    Args:
        fs: The file system.
        path: Of a segment, or of a root, of which the latest one counts.

    Raises:
        RecordError: If a file is not one, or a root has none.
        OSError: If a file cannot be read.
    """
    root = path if fs.is_folder(path) else None
    if root is not None:
        latest = last_segment(root / REPLAY_FOLDER)
        if latest is None:
            raise RecordError(root, "there is no record of fingerprints")
        path = root / REPLAY_FOLDER / f"{latest}{SUFFIX}"
    segments: Segments = {}
    last = _add(fs, path, segments)
    if root is not None:
        _check_name(path, last, path.stem)
    return _record(fs, path, root, segments, last)


def _record(fs: Fs, path: Path, root: Path | None, segments: Segments, last: str) -> Record:
    missing = _missing(fs, path.parent, segments, last)
    if missing is not None:  # what is there begins behind it
        segments = {name: _without_parent(one, missing) for name, one in segments.items()}
    own = segments[last]
    return Record(
        path=path,
        root=root,
        segments=tuple(segments),
        missing=missing,
        scope=own.scope,
        env=own.env,
        entries=tuple(_join(path, segments, last)),
    )


def _join(path: Path, segments: Segments, last: str) -> list[ReplayFingerprint]:
    try:
        return join_segments(segments, last)
    except ReplayFormatError as err:
        raise RecordError(path, str(err)) from err


def _without_parent(segment: ReplaySegment, parent: str) -> ReplaySegment:
    if segment.parent != parent:
        return segment
    return ReplaySegment(
        segment=segment.segment, scope=segment.scope, env=segment.env, entries=segment.entries
    )


def _missing(fs: Fs, folder: Path, segments: Segments, last: str) -> str | None:
    """Read the segments that one goes on from; return the name of the first that is not there."""
    parent = segments[last].parent
    while parent is not None and parent not in segments:
        file = folder / f"{parent}{SUFFIX}"
        is_plain = parent == Path(parent).name and "\0" not in parent
        if not is_plain or not fs.lexists(file):
            return parent
        _check_name(file, _add(fs, file, segments), parent)
        parent = segments[parent].parent
    return None


def _add(fs: Fs, path: Path, segments: Segments) -> str:
    data = _read(fs, path)
    try:
        segment = read_segment(data)
    except ReplayFormatError as err:
        is_other = err.line == 1 and _is_other_format(data)
        raise RecordError(path, str(err), is_other_format=is_other) from err
    segments[segment.segment] = segment
    return segment.segment


def _check_name(path: Path, found: str, expected: str) -> None:
    if found != expected:
        raise RecordError(path, f"it is the segment {found!r}, not {expected!r}")


def _is_other_format(data: bytes) -> bool:
    try:
        header = json.loads(data.partition(b"\n")[0])
    except (ValueError, RecursionError):
        return False
    known = {"format": FORMAT, "algorithm": ALGORITHM}
    return isinstance(header, dict) and any(
        isinstance(header.get(key), str) and header[key] != value for key, value in known.items()
    )


def _read(fs: Fs, path: Path) -> bytes:
    descriptor = fs.open_read(path)
    try:
        data = memoryview(bytearray(fs.size(descriptor)))
        at = 0
        while at < data.nbytes and (count := fs.pread_into(descriptor, data[at:], at)):
            at += count
    finally:
        fs.close(descriptor)
    return data[:at].tobytes()  # a log that is being written may be cut short meanwhile
