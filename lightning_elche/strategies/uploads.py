"""Copies files to another place, one after the other, at the rate that a budget grants."""

from __future__ import annotations

import posixpath
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import fsspec  # type: ignore[import-untyped]  # it has no types

from lightning_elche.coordination.bandwidth.budget import BandwidthBudget, offer

__all__ = ["Upload", "Uploader"]

ATTEMPTS = 3
RETRY_S, POLL_S = 1.0, 0.2
# Object stores send a block at once; 5 MiB is the least that they take.
STORE_BLOCK_BYTES = 5 << 20


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A file that was copied, or was not.

    Attributes:
        path: The local file.
        url: Its copy.
        num_bytes: What was sent.
        seconds: How long it took.
        error: Why there is no copy; nothing if there is one.
    """

    path: Path
    url: str
    num_bytes: int
    seconds: float
    error: str = ""


class Uploader:
    """A thread that copies files below a URL, as long as there are some.

    A copy has another name until it is complete. What fails is tried three times. The thread does
    not keep the process alive.

    Args:
        url: The folder, as fsspec knows it, such as "s3://bucket/run".
        budget: Grants the rate; the other end is the bucket or host of the URL, or "local".
        priority: Of the transfers.

    Attributes:
        on_done: Called for each file that was copied or given up, in the thread.
        sent_bytes: Of all files that were copied so far.

    Raises:
        ValueError: If the budget never grants such a transfer.
    """

    def __init__(self, url: str, *, budget: BandwidthBudget, priority: str) -> None:
        self.url, self._budget, self._priority = url.rstrip("/"), budget, priority
        self._host = urlsplit(url).netloc or "local"
        answer = offer(budget.config, (), self._host, priority)
        if isinstance(answer, str):
            raise ValueError(
                f"`budget` must grant {priority} transfers with {self._host!r}, but {answer}. Name "
                "the host in `per_host`, or lower `floor_mbps`."
            )
        self._files, self._root = fsspec.core.url_to_fs(url)
        self.on_done: Callable[[Upload], object] = _ignore
        self.sent_bytes = 0
        self._jobs: deque[tuple[Path, bool]] = deque()  # files, and whether they are to be removed
        self._changed = threading.Condition()
        self._is_busy = False
        self._over = threading.Event()
        self._failed: list[Upload] = []
        self._thread: threading.Thread | None = None

    def __reduce__(self) -> tuple[Callable[[], Uploader], tuple[()]]:
        """Be a new one in another process, as for a launcher that sends the strategy there."""
        new = partial(Uploader, self.url, budget=self._budget, priority=self._priority)
        return new, ()

    @property
    def priority(self) -> str:
        """Of the transfers."""
        return self._priority

    def put(self, path: Path) -> None:
        """Copy a file as it will be when its turn has come."""
        self._add(path, is_removal=False)

    def remove(self, path: Path) -> None:
        """Remove the copy of a file, once those before it are made; not if one of them failed."""
        self._add(path, is_removal=True)

    def drain(self, timeout_s: float) -> bool:
        """Wait until nothing is left to do, and return whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._left(), timeout_s)

    def close(self, timeout_s: float) -> None:
        """Do what is left to do, as long as there is time for it; the rest counts as failed."""
        self.drain(timeout_s)
        with self._changed:
            thread, over = self._thread, self._over
            self._thread, self._over = None, threading.Event()
        over.set()
        if thread is not None:
            thread.join(RETRY_S)
        with self._changed:
            for path, is_removal in self._jobs:
                if not is_removal:
                    self._failed.append(self._upload(path, 0, 0.0, "there was no time left"))
            self._jobs.clear()

    def take_failed(self) -> list[Upload]:
        """Return what could not be copied since the last call."""
        with self._changed:
            failed, self._failed = self._failed, []
            return failed

    def _left(self) -> int:
        return len(self._jobs) + self._is_busy

    def _add(self, path: Path, *, is_removal: bool) -> None:
        with self._changed:
            if (path, is_removal) not in self._jobs:
                self._jobs.append((path, is_removal))
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, args=(self._over,), name="elche-upload", daemon=True
                )
                self._thread.start()

    def _run(self, over: threading.Event) -> None:
        while True:
            with self._changed:
                self._is_busy = False
                self._changed.notify_all()
                if over.is_set():  # nobody knows this thread any more
                    return
                if not self._jobs:
                    self._thread = None
                    return
                path, is_removal = self._jobs.popleft()
                self._is_busy = True
            if is_removal:
                self._remove(path)
            else:
                self._put(path, over)

    def _put(self, path: Path, over: threading.Event) -> None:
        began_s = time.perf_counter()
        error, num_bytes = "", 0
        for attempt in range(1, ATTEMPTS + 1):
            try:
                num_bytes = self._copy(path, over)
                error = ""
                break
            except FileNotFoundError as err:
                if not path.exists():
                    return  # removed before its turn came
                error = repr(err)
            except Exception as err:  # whatever a file system of fsspec may raise
                error = repr(err)
            if attempt == ATTEMPTS or over.wait(RETRY_S * attempt):
                break
        upload = self._upload(path, num_bytes, time.perf_counter() - began_s, error)
        if error:
            with self._changed:
                self._failed.append(upload)
        self.sent_bytes += num_bytes
        self.on_done(upload)

    def _copy(self, path: Path, over: threading.Event) -> int:
        target = posixpath.join(self._root, path.name)
        part = f"{target}.part"
        with path.open("rb") as source:
            size = path.stat().st_size
            while not self._budget.can_transfer(self._host, self._priority):
                if over.wait(POLL_S):
                    raise TimeoutError("there was no time left")
            self._files.makedirs(self._root, exist_ok=True)
            with (
                self._budget.transfer(self._host, size, self._priority) as transfer,
                self._files.open(part, "wb", block_size=STORE_BLOCK_BYTES) as copy,
            ):
                while block := source.read(transfer.block_bytes):
                    if over.is_set():
                        raise TimeoutError("there was no time left")
                    transfer.throttle(len(block))
                    copy.write(block)
        stored = self._files.size(part)
        if stored != transfer.sent_bytes:
            raise OSError(f"{part} has {stored} of {transfer.sent_bytes} bytes")
        self._files.mv(part, target)
        return transfer.sent_bytes

    def _remove(self, path: Path) -> None:
        with self._changed:
            has_failed = bool(self._failed)
        target = posixpath.join(self._root, path.name)
        try:
            if not has_failed and not path.exists() and self._files.exists(target):
                self._files.rm(target)
        except Exception as err:  # whatever a file system of fsspec may raise
            upload = self._upload(path, 0, 0.0, f"its copy could not be removed: {err!r}")
            with self._changed:
                self._failed.append(upload)

    def _upload(self, path: Path, num_bytes: int, seconds: float, error: str) -> Upload:
        url = f"{self.url}/{path.name}"
        return Upload(path=path, url=url, num_bytes=num_bytes, seconds=seconds, error=error)


def _ignore(upload: Upload) -> None:
    del upload
