"""A file system of which a chosen operation fails.

A `Host` with it lets a `CheckpointStore` run into the fault.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import Any

from lightning_elche.partition.fs import Fs

__all__ = ["KINDS", "FaultFs", "Killed"]

WRITING = (
    "make_folder",
    "create",
    "open_write",
    "pwrite",
    "fsync",
    "close",
    "fsync_folder",
    "rename",
    "unlink",
    "remove_folder",
)
# What each kind of fault raises; "kill" ends all work before the operation, "kill after" behind it.
ERRORS = {"ENOSPC": errno.ENOSPC, "EDQUOT": errno.EDQUOT, "EIO": errno.EIO}
KINDS = (*ERRORS, "short", "kill", "kill after")


class Killed(BaseException):
    """The process has ended: no handler of `Exception` sees this."""


class FaultFs:
    """A file system whose operation `at`, counted among those that write, goes wrong.

    Args:
        inner: Does the work.
        at: Number of the operation, from 0; `None` for none.
        kind: "ENOSPC", "EDQUOT" and "EIO" raise that error; "short" writes half of what it should;
            "kill" ends all work before the operation, "kill after" behind it, with `Killed`.
        is_lasting: Whether later operations of the same name fail as well, until `heal`.

    Attributes:
        count: Operations that write so far.
        failed: Name of the operation that went wrong, `None` before.
        open: Descriptors of files that are being written.
        reading: Descriptors of files that are being read.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import mkdtemp
        >>> from lightning_elche.partition.fs import LocalFs
        >>> fs = FaultFs(LocalFs(), at=0, kind="ENOSPC")
        >>> fs.make_folder(Path(mkdtemp()) / "ckpt", 0o700)
        Traceback (most recent call last):
        OSError: [Errno 28] injected at make_folder
    """

    def __init__(
        self, inner: Fs, *, at: int | None, kind: str = "EIO", is_lasting: bool = False
    ) -> None:
        if kind not in KINDS:
            raise ValueError(f"`kind` must be one of {KINDS}, got {kind!r}.")
        self.inner = inner
        self.at = at
        self.kind = kind
        self.is_lasting = is_lasting
        self.count = 0
        self.failed: str | None = None
        self.open: set[int] = set()
        self.reading: set[int] = set()
        self._is_dead = False

    def heal(self) -> None:
        """Let everything work from now on, as in a new process."""
        self.at, self.is_lasting, self._is_dead, self.failed = None, False, False, None

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name in WRITING:
            return lambda *args: self._operate(name, args)
        return lambda *args: self._read(name, args)

    def _operate(self, name: str, args: Sequence[Any]) -> object:
        self._check_alive()
        if name == "close" and args[0] in self.reading:
            self.reading.discard(args[0])
            self.inner.close(args[0])
            return None
        number, self.count = self.count, self.count + 1
        is_hit = number == self.at or (self.is_lasting and self.failed == name)
        return self._fail(name, args) if is_hit else self._do(name, args)

    def _read(self, name: str, args: Sequence[Any]) -> object:
        function = getattr(self.inner, name)
        self._check_alive()
        answer = function(*args)
        if name == "open_read":
            self.reading.add(answer)
        return answer

    def _check_alive(self) -> None:
        if self._is_dead:
            raise Killed

    def _do(self, name: str, args: Sequence[Any]) -> object:
        if name == "close":
            self.open.discard(args[0])
        answer = getattr(self.inner, name)(*args)
        if name in ("create", "open_write"):
            self.open.add(answer)
        return answer

    def _fail(self, name: str, args: Sequence[Any]) -> object:
        self.failed = name
        if self.kind == "short" and name == "pwrite":
            descriptor, data, offset = args
            return self.inner.pwrite(descriptor, data[: max(data.nbytes // 2, 1)], offset)
        if self.kind == "short":
            return self._do(name, args)
        if self.kind.startswith("kill"):
            if self.kind == "kill after":
                self._do(name, args)
            self._end()
        if name == "close":  # the descriptor is gone all the same
            self._do(name, args)
        raise OSError(ERRORS[self.kind], f"injected at {name}")

    def _end(self) -> None:
        for descriptor in self.open | self.reading:  # as the kernel does for a dead process
            self.inner.close(descriptor)
        self.open.clear()
        self.reading.clear()
        self._is_dead = True
        raise Killed
