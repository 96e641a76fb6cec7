"""The event log of one rank: JSON lines, written by a thread of their own."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["INSTANTS", "SCHEMA", "SPANS", "EventLog", "Record", "log_path"]

log = logging.getLogger(__name__)

SCHEMA = "event-v1"
SPANS = frozenset(
    (
        *("startup", "compile", "window", "input", "average_wait", "average_transfer"),
        *("validation", "checkpoint", "throttle", "paused", "sit_out", "upload"),
    )
)
INSTANTS = frozenset(
    (
        *("average", "share", "anchor", "chunk", "epoch_end", "validation_end", "batch_skipped"),
        *("breaker", "threshold", "admission", "gate", "alert", "dropped", "stop_requested"),
        *("stop_agreed", "stopped", "resumed", "checkpoint_saved"),
    )
)
MAX_BYTES = 64 << 20
PERIOD_S = 1.0
CAPACITY = 100_000
JOIN_S = 5.0

# `json.dumps` would make one for each line.
_strict = json.JSONEncoder(separators=(",", ":"), allow_nan=False, default=str).encode


class Record(NamedTuple):
    """One line of an event log.

    `ph` is "M" for what is true of the log, "X" for what lasted `dur_ns`, "i" for what happened,
    "C" for what was measured.
    """

    t_ns: int
    k: str
    ph: str
    dur_ns: int
    a: dict[str, Any]


class EventLog:
    """Appends records to `rank{r}.jsonl`; of whoever calls, only the memory is touched.

    A thread writes once a second and after `flush`, so that a crash loses a second at most. What a
    full disk or a full queue swallows is counted in a record `dropped`.

    Args:
        folder: Gets the file; a file of an earlier run there is kept under another name.
        rank: Whose log it is.
        header: What is true of the whole run.
        sample: Returns what to record of the machine once a second; `None` to record nothing.
        clock_ns: Monotonic nanoseconds.
        wall_ns: Nanoseconds since 1970.
        max_bytes: The file is renamed to `rank{r}.jsonl.1`, `.2` and so on when it is that long.
        period_s: Seconds between two writes.
        capacity: Records that may wait to be written.
    """

    def __init__(
        self,
        folder: Path,
        *,
        rank: int,
        header: dict[str, Any],
        sample: Callable[[], dict[str, Any]] | None = None,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
        wall_ns: Callable[[], int] = time.time_ns,
        max_bytes: int = MAX_BYTES,
        period_s: float = PERIOD_S,
        capacity: int = CAPACITY,
    ) -> None:
        self.path = log_path(folder, rank)
        self.clock_ns, self._wall_ns = clock_ns, wall_ns
        self._header = {"schema": SCHEMA, **header}
        self._sample, self._max_bytes = sample, max_bytes
        self._period_s, self._capacity = period_s, capacity
        self._queue: deque[Record] = deque()
        self._seq = self._num_dropped = self._size = 0
        self._has_warned = self._is_finished = self._is_closed = False
        self._writing, self._wake = threading.Lock(), threading.Event()
        folder.mkdir(parents=True, exist_ok=True)
        self._open()
        self._thread = threading.Thread(target=self._run, name="elche-events", daemon=True)
        self._thread.start()

    def span(self, kind: str, start_ns: int, dur_ns: int, **attributes: object) -> None:
        """Record what lasted from `start_ns` on."""
        self._append(Record(start_ns, kind, "X", dur_ns, attributes))

    def instant(self, kind: str, /, **attributes: object) -> None:
        """Record what happened just now."""
        self._append(Record(self.clock_ns(), kind, "i", 0, attributes))

    def counter(self, kind: str, /, **values: object) -> None:
        """Record what was measured just now."""
        self._append(Record(self.clock_ns(), kind, "C", 0, values))

    def clock(self, at_ns: int | None = None, **attributes: object) -> None:
        """Record what the wall clock shows at `at_ns`, by default now."""
        now_ns = self.clock_ns()
        at_ns = now_ns if at_ns is None else at_ns
        wall_ns = self._wall_ns() - (now_ns - at_ns)
        self._append(Record(at_ns, "clock", "M", 0, {"wall_ns": wall_ns, **attributes}))

    def flush(self) -> None:
        """Have what was recorded written at once, without waiting for it."""
        self._wake.set()

    def finish(self) -> None:
        """Write that training ends here, and all that was recorded; what follows is kept as well.

        A second call does nothing.
        """
        if not self._is_finished:
            self._is_finished = True
            self.clock(closed=True)
            self.write()

    def close(self) -> None:
        """Write the rest, and that the log ends here; a second call does nothing."""
        if self._is_closed:
            return
        self.finish()
        self._is_closed = True
        self._wake.set()
        if self._thread is not threading.current_thread():
            self._thread.join(JOIN_S)
        self.write()
        with self._writing:
            self._file.close()

    def write(self) -> None:
        """Write what waits, in the calling thread; nothing is lost if the disk is full for now."""
        with self._writing:
            if self._file.closed:
                return
            lines = []
            try:
                if self._size >= self._max_bytes and self._queue:
                    full = self._file
                    self._open()
                    full.close()
                lines = self._lines()
                self._size += self._file.write(b"".join(lines))
            except OSError as err:
                self._num_dropped += len(lines)
                if not self._has_warned:
                    self._has_warned = True
                    log.warning("%s could not be written: %s. Training goes on.", self.path, err)

    def _append(self, record: Record) -> None:
        if self._is_closed or len(self._queue) >= self._capacity:
            self._num_dropped += 1
        else:
            self._queue.append(record)

    def _run(self) -> None:
        due_s = time.monotonic() + self._period_s
        while not self._is_closed:
            self._wake.wait(max(0.0, due_s - time.monotonic()))
            self._wake.clear()
            if time.monotonic() >= due_s:
                due_s = time.monotonic() + self._period_s
                if self._sample is not None:
                    self.counter("host", **self._sample())
            self.write()

    def _lines(self) -> list[bytes]:
        dropped, self._num_dropped = self._num_dropped, 0
        lines = []
        if dropped:
            self._seq += dropped
            count = {"count": dropped}
            lines.append(self._line(Record(self.clock_ns(), "dropped", "i", 0, count)))
        while self._queue:
            lines.append(self._line(self._queue.popleft()))
        return lines

    def _line(self, record: Record) -> bytes:
        fields: dict[str, Any] = {"seq": self._seq, "t_ns": record.t_ns, "k": record.k}
        fields["ph"] = record.ph
        if record.ph == "X":
            fields["dur_ns"] = record.dur_ns
        self._seq += 1
        try:
            text = _strict({**fields, "a": record.a})
        except ValueError:
            text = _strict({**fields, "a": _finite(record.a)})
        return text.encode() + b"\n"

    def _open(self) -> None:
        """Begin a file, with the header, so that each can be understood alone."""
        if self.path.exists():
            self.path.rename(_free_name(self.path))
        # Unbuffered, since a forked worker of a DataLoader would write the buffer once more.
        self._file = self.path.open("xb", buffering=0)
        now_ns = self.clock_ns()
        wall = {"wall_ns": self._wall_ns()}
        records = (
            Record(now_ns, "header", "M", 0, self._header),
            Record(now_ns, "clock", "M", 0, wall),
        )
        data = b"".join(map(self._line, records))
        self._file.write(data)
        self._size = len(data)


def log_path(folder: Path, rank: int) -> Path:
    """Return where the log of a rank is."""
    return folder / f"rank{rank}.jsonl"


def _free_name(path: Path) -> Path:
    taken = (other.suffix[1:] for other in path.parent.glob(f"{path.name}.*"))
    number = 1 + max((int(suffix) for suffix in taken if suffix.isdecimal()), default=0)
    return path.with_name(f"{path.name}.{number}")


def _finite(value: object) -> Any:  # noqa: ANN401  # JSON
    """Return `value` with numbers as text that JSON has no form for."""
    return json.loads(json.dumps(value, default=str), parse_constant=str)
