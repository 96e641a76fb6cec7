"""Reads the event logs of a run, also those of ranks that were killed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_elche.exceptions import ElCheError
from lightning_elche.timeline.events import SCHEMA, Record

__all__ = ["NoEvents", "RankLog", "read_run"]

_decode = json.JSONDecoder().raw_decode
FIELDS = frozenset(("t_ns", "k", "ph", "a"))
NAME = re.compile(r"rank(\d+)\.jsonl(?:\.(\d+))?")


class NoEvents(ElCheError, ValueError):
    """There are no event logs where they were looked for."""


@dataclass
class RankLog:
    """What one rank has recorded of a run; it is read anew each time, since it may be long.

    Attributes:
        rank: Which.
        header: What is true of the whole log.
        paths: Its files, the oldest first.
        num_dropped: Records that were lost before they were written, as of the last reading.
        num_cut: Lines that could not be read, such as the last of a rank that was killed.
        is_closed: Whether the rank has ended its log itself.
    """

    rank: int
    header: dict[str, Any]
    paths: list[Path]
    num_dropped: int = 0
    num_cut: int = 0
    is_closed: bool = False

    def records(self) -> Iterator[Record]:
        """Yield everything but the header, in the order in which it was written."""
        self.num_dropped, self.num_cut, self.is_closed = 0, 0, False
        for line in self._lines():
            fields = _parsed(line)
            if fields is None:
                self.num_cut += 1
                continue
            kind, attributes = fields["k"], fields["a"]
            if kind == "dropped":
                self.num_dropped += attributes.get("count", 1)
            elif kind == "clock" and attributes.get("closed"):
                self.is_closed = True
            if kind != "header":
                yield _record(fields)

    def clocks(self) -> Iterator[Record]:
        """Yield what clocks have shown, which is far less than everything."""
        for line in self._lines():
            fields = _parsed(line) if '"clock"' in line else None
            if fields is not None and fields["k"] == "clock":
                yield _record(fields)

    def _lines(self) -> Iterator[str]:
        for path in self.paths:
            with path.open(encoding="utf-8", errors="replace") as file:
                yield from file


def read_run(folder: Path) -> list[RankLog]:
    """Return the logs of the last run in `folder`, by rank; those of some ranks may be missing.

    Args:
        folder: `RUN/elche/events`, or `RUN`, or `RUN/elche`.

    Raises:
        NoEvents: If there are none.
        ValueError: If they are of another version.
    """
    places = (folder, folder / "events", folder / "elche" / "events")
    files = next(filter(None, map(_files_by_rank, places)), None)
    if files is None:
        raise NoEvents(
            f"`RUN` must be the folder of a run with event logs in elche/events, got {folder}. "
            "Train with the callback CadenceMonitor or Coordination."
        )
    logs = [_read_rank(rank, paths) for rank, paths in sorted(files.items())]
    found = [log for log in logs if log is not None]
    if not found:
        raise NoEvents(f"No event log in {folder} says anything: ranks have ended at once.")
    newest = max(found, key=_wall_ns)
    return [log for log in found if log.header.get("run") == newest.header.get("run")]


def _files_by_rank(folder: Path) -> dict[int, list[Path]]:
    """Return the files of each rank, the oldest first."""
    numbered: dict[int, list[tuple[float, Path]]] = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        match = NAME.fullmatch(path.name)
        if match is not None:
            number = float(match[2]) if match[2] else float("inf")
            numbered.setdefault(int(match[1]), []).append((number, path))
    return {rank: [path for _, path in sorted(paths)] for rank, paths in numbered.items()}


def _read_rank(rank: int, paths: list[Path]) -> RankLog | None:
    """Find what belongs to the same run as the last file with a header."""
    headers = [(path, _header_of(path)) for path in paths]
    known = [(path, header) for path, header in headers if header is not None]
    if not known:
        return None
    last = known[-1][1]
    same = [path for path, header in known if header.get("run") == last.get("run")]
    log = RankLog(rank, last, same)
    return log if next(log.clocks(), None) is not None else None


def _header_of(path: Path) -> dict[str, Any] | None:
    with path.open(encoding="utf-8", errors="replace") as file:
        first = _parsed(file.readline())
    if first is None or first.get("k") != "header":
        return None
    header: dict[str, Any] = first["a"]
    if header.get("schema") != SCHEMA:
        raise ValueError(
            f"`schema` of {path} must be {SCHEMA!r}, got {header.get('schema')!r}. Read it with "
            "the release of lightning-elche that wrote it."
        )
    return header


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        fields, _ = _decode(line)
    except ValueError:
        return None
    return fields if isinstance(fields, dict) and fields.keys() >= FIELDS else None


def _record(fields: dict[str, Any]) -> Record:
    return Record(fields["t_ns"], fields["k"], fields["ph"], fields.get("dur_ns", 0), fields["a"])


def _wall_ns(log: RankLog) -> int:
    wall_ns: int = next(log.clocks()).a.get("wall_ns", 0)
    return wall_ns
