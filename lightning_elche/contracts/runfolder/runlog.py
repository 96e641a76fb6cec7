"""The logs of a run as one rank writes them: steps in whole lines, events at once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from lightning_elche.contracts.records import StepRecord
from lightning_elche.contracts.runfolder.names import events_name, steps_name
from lightning_elche.contracts.runfolder.stepline import format_step
from lightning_elche.contracts.runfolder.torntail import (
    complete_last_line,
    cut_torn_tail,
    torn_tail,
)
from lightning_elche.contracts.strictjson import dump_strictly

__all__ = ["RunLog", "utc_now"]

MAX_PENDING_BYTES = 1 << 24
APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC


class RunLog:
    """The step log and the event log of one rank.

    Opening them mends what a crash has left: a last line that was not written to its end goes to
    an event, and the file is cut behind the line before. After an `OSError` the lines that are
    missing are written with the next ones, as far as `MAX_PENDING_BYTES` reach.

    Args:
        run_dir: Folder of the run; made if it is not there.
        rank: Whose log this is.
        attempt: How many times the run was resumed before.
        flush_every: So many steps are written together, and are lost if the process is killed.
        flush_ms: After this time they are written although they are fewer.
        clock: Seconds since any moment.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> log = RunLog(folder, rank=0)
        >>> log.event("RUN_START")
        >>> log.close()
        >>> (folder / "events.jsonl").read_text().startswith('{"event": "RUN_START"')
        True
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        rank: int,
        attempt: int = 0,
        flush_every: int = 64,
        flush_ms: float = 100.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if flush_every < 1:
            raise ValueError(f"`flush_every` must be at least 1, got {flush_every}.")
        run_dir.mkdir(parents=True, exist_ok=True)
        self._attempt = attempt
        self._flush_every = flush_every
        self._flush_seconds = flush_ms / 1000.0
        self._clock = clock
        self._lines: list[bytes] = []
        self._flushed_at = clock()
        self._events = self._open_events(run_dir / events_name(rank))
        self._steps = self._open_steps(run_dir / steps_name(rank))

    def step(self, record: StepRecord) -> None:
        """Log a step, by and by.

        Raises:
            OSError: If it, or a step before it, could not be written.
            ValueError: If a number of it is not finite.
        """
        self._lines.append(format_step(record, attempt=self._attempt))
        is_full = len(self._lines) >= self._flush_every
        if is_full or self._clock() - self._flushed_at >= self._flush_seconds:
            self.flush()

    def event(self, name: str, **facts: object) -> None:
        """Log an event at once, behind all steps before it.

        Args:
            name: Such as "RUN_START".
            facts: What else is to be said; numbers that are not finite are written as text.

        Raises:
            OSError: If it, or a step before it, could not be written.
        """
        try:
            self.flush()
        finally:
            self._events.append(self._event_line(name, facts))

    def flush(self) -> None:
        """Write all steps that are not yet in the file.

        Raises:
            OSError: If that fails.
        """
        lines, self._lines = self._lines, []
        self._flushed_at = self._clock()
        self._steps.append(b"".join(lines))

    def close(self) -> None:
        """Write what is left, wait until it is on the disk, and close the files.

        Raises:
            OSError: If that fails; the files are closed all the same.
        """
        try:
            self.flush()
        finally:
            try:
                self._steps.close()
            finally:
                self._events.close()

    def _open_events(self, path: Path) -> _LineFile:
        # The tail of this file cannot be kept in this file before it is cut.
        tail = cut_torn_tail(path)
        file = _LineFile(path)
        if tail is not None:
            file.append(self._event_line("TORN_TAIL", {"file": path.name, "tail": _text(tail)}))
        return file

    def _open_steps(self, path: Path) -> _LineFile:
        complete_last_line(path)
        tail = torn_tail(path)
        if tail is not None:
            self._events.append(
                self._event_line("TORN_TAIL", {"file": path.name, "tail": _text(tail)})
            )
            cut_torn_tail(path)
        return _LineFile(path)

    def _event_line(self, name: str, facts: dict[str, object]) -> bytes:
        return dump_strictly({"event": name, "time": utc_now(), "attempt": self._attempt, **facts})


class _LineFile:
    """A file to which lines are appended."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, APPEND, 0o644)
        self._pending = b""

    def append(self, lines: bytes) -> None:
        """Write lines in one call; what the disk did not take comes first the next time."""
        content = self._pending + lines
        written = 0
        try:
            while written < len(content):
                written += os.write(self._descriptor, content[written:])
        finally:
            self._pending = content[written:]
            if len(self._pending) > MAX_PENDING_BYTES:
                # Complete the line that was begun, so that the next one stands on its own.
                self._pending = self._pending[: self._pending.find(b"\n") + 1]

    def close(self) -> None:
        try:
            os.fsync(self._descriptor)
        finally:
            os.close(self._descriptor)


def utc_now() -> str:
    """Return the time of day, ISO 8601 in UTC, to the millisecond."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def _text(tail: bytes) -> str:
    return tail.decode("utf-8", "backslashreplace")
