"""The file that says how a run is: written anew each second, never seen in part."""

from __future__ import annotations

import json
import logging
import math
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from lightning_elche.coordination.atomic_file import replace_file

__all__ = ["STATUS_NAME", "STATUS_VERSION", "StatusWriter", "status_bytes"]

log = logging.getLogger(__name__)

STATUS_NAME = "status.json"
STATUS_VERSION = 1
CLOSE_S = 5.0


class StatusWriter:
    """Writes what a function returns to a file, in a thread of its own.

    Args:
        path: The file; its folder exists.
        read: Returns the status; JSON-able, cheap, and called in the thread.
        period_s: Seconds between two versions.
        after: Called after each version, such as to feed a watchdog.
    """

    def __init__(
        self,
        path: Path,
        read: Callable[[], Mapping[str, object]],
        *,
        period_s: float,
        after: Callable[[], None] | None = None,
    ) -> None:
        self._path = path
        self._read = read
        self._period_s = period_s
        self._after = after
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._has_complained = False
        self._thread = threading.Thread(target=self._work, name="elche-status", daemon=True)

    def start(self) -> None:
        """Write the file now, and each period from now on.

        Raises:
            OSError: If it cannot be written.
        """
        replace_file(self._path, status_bytes(self._read()))
        self._thread.start()

    def write(self) -> None:
        """Write the file now; what goes wrong is told once, and does not end the run."""
        with self._lock:
            try:
                replace_file(self._path, status_bytes(self._read()))
                if self._after is not None:
                    self._after()
            except Exception:  # of a full disk, or of a component that cannot say how it is
                if not self._has_complained:
                    self._has_complained = True
                    log.exception("%s could not be written. Told once.", self._path)

    def close(self) -> None:
        """Write the file a last time."""
        self._is_over.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE_S)
        self.write()

    def _work(self) -> None:
        while not self._is_over.wait(self._period_s):
            self.write()


def status_bytes(status: Mapping[str, object]) -> bytes:
    """Return a status as JSON; numbers that JSON does not know become null."""
    return json.dumps(_finite(status), default=str, allow_nan=False).encode()


def _finite(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return value
