"""All that checkpoints ask of a file system, and the local one."""

from __future__ import annotations

import os
import socket
import stat
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

__all__ = ["Fs", "Host", "LocalFs", "Owner", "this_host"]


@dataclass(frozen=True)
class Owner:
    """A process that writes.

    Attributes:
        host: Name of its machine.
        boot_id: Of the machine's present run: process ids begin anew with another one.
        pid: Of the process.
    """

    host: str
    boot_id: str
    pid: int


@dataclass(frozen=True, kw_only=True)
class Host:
    """What a store has around it.

    Attributes:
        fs: The file system.
        owner: The process, to which temporary folders belong.
        now: Returns the time, in seconds since 1970.
        new_uuid: Returns hexadecimal digits that nobody else has.
        is_alive: Returns whether a process of this machine has an id.
    """

    fs: Fs
    owner: Owner
    now: Callable[[], float]
    new_uuid: Callable[[], str]
    is_alive: Callable[[int], bool]


class Fs(Protocol):
    """A file system, which never follows a link; whatever fails raises an `OSError`."""

    def lexists(self, path: Path) -> bool:
        """Return whether there is something, be it a link to nothing."""
        ...

    def is_folder(self, path: Path) -> bool:
        """Return whether this is a folder, and no link to one."""
        ...

    def list_names(self, folder: Path) -> Sequence[str]:
        """Return the names in a folder, sorted."""
        ...

    def modified_at(self, path: Path) -> float:
        """Return when it was last changed, in seconds since 1970."""
        ...

    def free_bytes(self, folder: Path) -> int:
        """Return the space that is left to this user."""
        ...

    def make_folder(self, path: Path, mode: int) -> None:
        """Make a folder in one that exists."""
        ...

    def create(self, path: Path) -> int:
        """Make a file that does not exist, for writing."""
        ...

    def open_write(self, path: Path) -> int:
        """Open a file that exists, for writing; never a link."""
        ...

    def open_read(self, path: Path) -> int:
        """Open a plain file for reading; never a link, and never waiting for a pipe."""
        ...

    def size(self, descriptor: int) -> int:
        """Return the length of an open file."""
        ...

    def pread_into(self, descriptor: int, buffer: memoryview, offset: int) -> int:
        """Fill a buffer from `offset`; return how many bytes there were, 0 at the end."""
        ...

    def pwrite(self, descriptor: int, data: memoryview, offset: int) -> int:
        """Write at `offset`; return how many bytes were written, which may be fewer."""
        ...

    def fsync(self, descriptor: int) -> None:
        """Wait until the content of an open file is on the disk."""
        ...

    def close(self, descriptor: int) -> None:
        """Close a file."""
        ...

    def fsync_folder(self, path: Path) -> None:
        """Wait until the names in a folder are on the disk."""
        ...

    def rename(self, source: Path, target: Path) -> None:
        """Give another name to a folder; fails where a folder that is not empty has it."""
        ...

    def unlink(self, path: Path) -> None:
        """Remove a file or a link."""
        ...

    def remove_folder(self, path: Path) -> None:
        """Remove an empty folder."""
        ...


class LocalFs:
    """The file system of this machine."""

    def lexists(self, path: Path) -> bool:
        """Return whether there is something, be it a link to nothing."""
        return os.path.lexists(path)

    def is_folder(self, path: Path) -> bool:
        """Return whether this is a folder, and no link to one."""
        try:
            return stat.S_ISDIR(os.lstat(path).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False

    def list_names(self, folder: Path) -> Sequence[str]:
        """Return the names in a folder, sorted."""
        return sorted(os.listdir(folder))

    def modified_at(self, path: Path) -> float:
        """Return when it was last changed, in seconds since 1970."""
        return os.lstat(path).st_mtime

    def free_bytes(self, folder: Path) -> int:
        """Return the space that is left to this user."""
        volume = os.statvfs(folder)
        return volume.f_bavail * volume.f_frsize

    def make_folder(self, path: Path, mode: int) -> None:
        """Make a folder in one that exists."""
        os.mkdir(path, mode)

    def create(self, path: Path) -> int:
        """Make a file that does not exist, for writing."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(path, flags, 0o666)

    def open_write(self, path: Path) -> int:
        """Open a file that exists, for writing; never a link."""
        return os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)

    def open_read(self, path: Path) -> int:
        """Open a plain file for reading; never a link, and never waiting for a pipe."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(path, flags)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise IsADirectoryError(f"{path} is no plain file")
        return descriptor

    def size(self, descriptor: int) -> int:
        """Return the length of an open file."""
        return os.fstat(descriptor).st_size

    def pread_into(self, descriptor: int, buffer: memoryview, offset: int) -> int:
        """Fill a buffer from `offset`; return how many bytes there were, 0 at the end."""
        return os.preadv(descriptor, [buffer], offset)

    def pwrite(self, descriptor: int, data: memoryview, offset: int) -> int:
        """Write at `offset`; return how many bytes were written, which may be fewer."""
        return os.pwrite(descriptor, data, offset)

    def fsync(self, descriptor: int) -> None:
        """Wait until the content of an open file is on the disk."""
        os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        """Close a file."""
        os.close(descriptor)

    def fsync_folder(self, path: Path) -> None:
        """Wait until the names in a folder are on the disk."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Give another name to a folder; fails where a folder that is not empty has it."""
        os.rename(source, target)

    def unlink(self, path: Path) -> None:
        """Remove a file or a link."""
        os.unlink(path)

    def remove_folder(self, path: Path) -> None:
        """Remove an empty folder."""
        os.rmdir(path)


def this_host() -> Host:
    """Return the local file system, the present process and the clock of this machine."""
    return Host(
        fs=LocalFs(),
        owner=_this_process(),
        now=time.time,
        new_uuid=lambda: uuid.uuid4().hex,
        is_alive=_is_process_alive,
    )


def _this_process() -> Owner:
    boot_id = Path("/proc/sys/kernel/random/boot_id")  # Linux
    known = boot_id.read_text(encoding="ascii").strip() if boot_id.exists() else "unknown"
    return Owner(host=socket.gethostname(), boot_id=known, pid=os.getpid())


def _is_process_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is that of another user
        return True
    return True
