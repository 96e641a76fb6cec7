"""The files of replay: `ROOT/replay/SEGMENT.jsonl`, and the lanes and the schedule beside it."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO, Any

from lightning_elche.partition.errors import ReplayFormatError
from lightning_elche.partition.replay import ReplayFingerprint
from lightning_elche.partition.replay_file import (
    ReplaySegment,
    SegmentWriter,
    join_segments,
    read_segment,
)
from lightning_elche.partition.replay_lanes import (
    LanesPoint,
    LanesRecord,
    LanesWriter,
    read_lanes,
)

__all__ = [
    "Expected",
    "RecordFiles",
    "lanes_record",
    "last_segment",
    "next_segment",
    "read_expected",
    "schedule_folder",
]

SEGMENT = re.compile(r"segment-([0-9]{4,})\.jsonl")


@dataclass(frozen=True, kw_only=True)
class Expected:
    """The record that a run is verified against.

    Attributes:
        folder: Where it lies.
        segments: The names of its segments that count, the latest first.
        scope: What they are fingerprints of.
        env: What the latest was recorded with.
        entries: The fingerprints.
        schedule: The folder of the schedule, if ranks met by the clock.
    """

    folder: Path
    segments: tuple[str, ...]
    scope: str
    env: Mapping[str, Any] = field(default_factory=dict)
    entries: tuple[ReplayFingerprint, ...] = ()
    schedule: Path | None = None

    @property
    def root(self) -> Path:
        """Where checkpoints of that run may be."""
        return self.folder.parent


class RecordFiles:
    """Writes what this rank records; every line is in the file before the run goes on.

    Args:
        folder: Made if it is missing.
        segment: What the record of fingerprints begins with; `None` on a rank that has none.
        lanes: What the record of lanes begins with.

    Raises:
        FileExistsError: If there is such a record.
    """

    def __init__(self, folder: Path, *, segment: ReplaySegment | None, lanes: LanesRecord) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._files: list[IO[bytes]] = []
        self._lock = threading.Lock()
        self._since_parent: list[bytes] = []
        self._segment: SegmentWriter | None = None
        if segment is not None:
            write = partial(self._write_entry, self._open(folder / f"{segment.segment}.jsonl"))
            self._segment = SegmentWriter(segment, write)
            self._since_parent.clear()  # of the first line
        path = _lanes_path(folder, lanes.segment, lanes.rank)
        self._lanes = LanesWriter(lanes, partial(_write, self._open(path)))

    def append(self, entry: ReplayFingerprint, point: LanesPoint) -> None:
        """Write a point of the record."""
        if self._segment is not None:
            self._segment.append(entry)
        self.append_lanes(point)

    def append_lanes(self, point: LanesPoint) -> None:
        """Write lanes that no fingerprint is recorded of."""
        self._lanes.append(point)

    def take_lines(self) -> bytes:
        """Return the lines of the fingerprints since the last call."""
        lines, self._since_parent = b"".join(self._since_parent), []
        return lines

    def sync(self) -> None:
        """Make what is written outlast a power cut; another thread may call this."""
        with self._lock:
            for file in self._files:
                os.fsync(file.fileno())

    def close(self) -> None:
        """Close the files, whose lines outlast a power cut then."""
        self.sync()
        with self._lock:
            files, self._files = self._files, []
            for file in files:
                file.close()

    def _open(self, path: Path) -> IO[bytes]:
        file = path.open("xb")
        self._files.append(file)
        return file

    def _write_entry(self, file: IO[bytes], line: bytes) -> None:
        _write(file, line)
        self._since_parent.append(line)


def next_segment(folder: Path) -> str:
    """Return the name of a new segment."""
    return f"segment-{max(_numbers(folder), default=-1) + 1:04d}"


def last_segment(folder: Path) -> str | None:
    """Return the name of the latest segment, if there is one."""
    numbers = _numbers(folder)
    return f"segment-{max(numbers):04d}" if numbers else None


def schedule_folder(folder: Path, segment: str) -> Path:
    """Return where the schedule of a segment is recorded."""
    return folder / f"{segment}-schedule"


def read_expected(path: Path, *, restored_step: int | None, has_schedule: bool) -> Expected:
    """Read a record.

    Args:
        path: Of a segment, or the root of the run, of which the latest segment counts. What it went
            on from counts, too, unless `has_schedule`: a schedule is that of one segment.
        restored_step: The step that is resumed from; of a schedule one that began there is taken.
        has_schedule: Whether ranks meet by a schedule.

    Raises:
        FileNotFoundError: If there is none.
        ReplayFormatError: If it is none.
    """
    folder = path / "replay" if path.is_dir() else path.parent
    last = last_segment(folder) if path.is_dir() else path.stem
    if last is None or not (folder / f"{last}.jsonl").is_file():
        raise FileNotFoundError(
            "`expected` must be a record of fingerprints, or the root of a run that has one, got "
            f"{str(path)!r}."
        )
    segments = _chain(folder, last)
    if has_schedule:
        for name, segment in segments.items():
            schedule, lanes = schedule_folder(folder, name), lanes_record(folder, (name,), 0)
            if schedule.is_dir() and lanes is not None and lanes.restored_step == restored_step:
                return Expected(
                    folder=folder,
                    segments=(name,),
                    scope=segment.scope,
                    env=segment.env,
                    entries=segment.entries,
                    schedule=schedule,
                )
    entries = tuple(join_segments(segments, last))
    return Expected(
        folder=folder,
        segments=tuple(segments),
        scope=segments[last].scope,
        env=segments[last].env,
        entries=entries,
    )


def lanes_record(folder: Path, segments: tuple[str, ...], rank: int) -> LanesRecord | None:
    """Return the lanes that a rank has recorded in some segments, the latest first.

    Raises:
        ReplayFormatError: If a file is no such record.
    """
    paths = [_lanes_path(folder, segment, rank) for segment in segments]
    records = [read_lanes(path.read_bytes()) for path in paths if path.is_file()]
    if not records:
        return None
    points = {key: point for one in reversed(records) for key, point in one.points.items()}
    return replace(records[0], points=points)


def _chain(folder: Path, last: str) -> dict[str, ReplaySegment]:
    """Return a segment and all that it went on from, the latest first."""
    segments: dict[str, ReplaySegment] = {}
    name: str | None = last
    while name is not None and name not in segments:
        path = folder / f"{name}.jsonl"
        if not path.is_file():
            raise ReplayFormatError(1, f"segment {name!r} is missing")
        segments[name] = read_segment(path.read_bytes())
        name = segments[name].parent
    return segments


def _numbers(folder: Path) -> list[int]:
    names = os.listdir(folder) if folder.is_dir() else []
    return [int(match[1]) for match in map(SEGMENT.fullmatch, names) if match]


def _lanes_path(folder: Path, segment: str, rank: int) -> Path:
    return folder / f"{segment}-lanes.rank{rank}.jsonl"


def _write(file: IO[bytes], line: bytes) -> None:
    file.write(line)
    file.flush()
