"""Puts a finished folder in its place, so that after any fault it is there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lightning_elche.partition.errors import DurabilityUncertain, WriteFailed
from lightning_elche.partition.fs import Fs
from lightning_elche.partition.manifest import MANIFEST, FileRecord

__all__ = ["Publisher", "SyncFailed", "TargetExists", "chunks", "remove_tree", "write_all"]

CHUNK_BYTES = 8 << 20
GATHER_BYTES = 1 << 16  # pieces below this are copied together, to save system calls


class TargetExists(Exception):  # a state of affairs, never raised to a caller
    """Another writer was first; the finished folder is still at `temp`."""

    def __init__(self, temp: Path) -> None:
        super().__init__(str(temp))
        self.temp = temp


class SyncFailed(Exception):  # see above
    """An fsync failed: pages may be dropped, so that another one would lie."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(frozen=True, kw_only=True)
class Publisher:
    """Writes folders of files into a root.

    Attributes:
        fs: The file system.
        is_durable: Whether to wait for the disk.
        dir_mode: Permissions of new folders.
    """

    fs: Fs
    is_durable: bool = True
    dir_mode: int = 0o700

    def make_root(self, root: Path) -> None:
        """Make a folder and those above it, and let their names survive a power cut.

        Raises:
            WriteFailed: If it cannot be made.
        """
        try:
            self._make(root)
        except OSError as err:
            raise _failed(root, err) from err

    def _make(self, folder: Path) -> None:
        is_new = not self.fs.lexists(folder)
        if is_new:
            if not self.fs.lexists(folder.parent):
                self._make(folder.parent)
            with contextlib.suppress(FileExistsError):  # another writer was first
                self.fs.make_folder(folder, self.dir_mode)
        # Also if it was there: who made it may have died before this.
        try:
            self.sync_folder(folder.parent)
        except PermissionError:
            if is_new:
                raise

    def publish(
        self, target: Path, temp_name: Callable[[], str], fill: Callable[[Path], bytes]
    ) -> None:
        """Write a folder beside `target`, and rename it once all of it is on the disk.

        Args:
            target: Where it goes.
            temp_name: Returns a new name for a temporary folder.
            fill: Writes all files but the manifest into a folder, and returns the manifest.

        Raises:
            WriteFailed: If it could not be written; nothing has changed then.
            DurabilityUncertain: If it is in its place, but may not survive a power cut.
            TargetExists: If something else is in its place.
        """
        temp = self._write(target, temp_name, fill)
        self.move(temp, target)

    def move(self, temp: Path, target: Path) -> None:
        """Rename a finished folder; raises as `publish` does."""
        try:
            self.fs.rename(temp, target)
        except OSError as err:
            is_moved = self.fs.lexists(target) and not self.fs.lexists(temp)
            if not is_moved:  # else the answer was lost, as on a network
                if self.fs.lexists(target):
                    raise TargetExists(temp) from err
                self.discard(temp)
                raise _failed(target, err) from err
        try:
            self.sync_folder(target.parent)
        except OSError as err:
            raise DurabilityUncertain(str(target), str(err)) from err

    def probe(self, temp: Path) -> None:
        """Write and remove a folder with a small file.

        Raises:
            WriteFailed: If that is not possible.
        """
        try:
            self._fill(temp, lambda _: b"{}")
            remove_tree(self.fs, temp)
        except (SyncFailed, OSError) as err:
            self.discard(temp)
            cause = err.error if isinstance(err, SyncFailed) else err
            raise _failed(temp.parent, cause) from err

    def write_file(self, path: Path, data: bytes) -> FileRecord:
        """Write a small file."""
        with self.open_files([path]) as (descriptor,):
            write_all(self.fs, descriptor, memoryview(data), 0)
        return FileRecord(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())

    @contextlib.contextmanager
    def open_files(
        self,
        paths: Iterable[Path],
        *,
        run: Callable[..., Iterable[object]] = map,
        existing: Collection[Path] = (),
        synced: Collection[int] = (),
    ) -> Iterator[list[int]]:
        """Make files, and wait for the disk at the end of the block.

        Args:
            paths: The files.
            run: Calls a function for each descriptor, as `map` does.
            existing: Those of them that another process has made.
            synced: Descriptors that were waited for before, as of the end of the block.
        """
        with contextlib.ExitStack() as closing:
            opened: list[int] = []
            for path in paths:
                make = self.fs.open_write if path in existing else self.fs.create
                opened.append(make(path))
                closing.callback(self.fs.close, opened[-1])
            yield opened
            if self.is_durable:
                list(run(self.sync, [one for one in opened if one not in synced]))

    def sync(self, descriptor: int) -> None:
        """Wait until the content of an open file is on the disk, unless that is not wanted.

        Raises:
            SyncFailed: If that fails; the file must be written anew then.
        """
        if not self.is_durable:
            return
        try:
            self.fs.fsync(descriptor)
        except OSError as err:
            raise SyncFailed(err) from err

    def sync_folder(self, folder: Path) -> None:
        """Wait until the names in a folder are on the disk, unless that is not wanted."""
        if self.is_durable:
            self.fs.fsync_folder(folder)

    def discard(self, temp: Path) -> None:
        """Remove a temporary folder if that is possible; a later collection removes it else."""
        with contextlib.suppress(OSError):
            remove_tree(self.fs, temp)

    def _write(
        self, target: Path, temp_name: Callable[[], str], fill: Callable[[Path], bytes]
    ) -> Path:
        """Write a temporary folder; once more, all of it, if an fsync failed."""
        for is_last in (False, True):
            temp = target.parent / temp_name()
            try:
                self._fill(temp, fill)
            except SyncFailed as err:
                self.discard(temp)
                if is_last:
                    raise _failed(target, err.error) from err
            except OSError as err:
                self.discard(temp)
                raise _failed(target, err) from err
            except BaseException:
                self.discard(temp)
                raise
            else:
                break
        return temp

    def _fill(self, temp: Path, fill: Callable[[Path], bytes]) -> None:
        self.fs.make_folder(temp, self.dir_mode)
        manifest = fill(temp)
        self.write_file(temp / MANIFEST, manifest)
        try:
            self.sync_folder(temp)
        except OSError as err:
            raise SyncFailed(err) from err


def write_all(fs: Fs, descriptor: int, data: memoryview, offset: int) -> None:
    """Write `data` at `offset`, with as many calls as that takes."""
    while data.nbytes:
        written = fs.pwrite(descriptor, data, offset)
        if written == 0:
            raise OSError(errno.EIO, "no byte was written")
        data, offset = data[written:], offset + written


def chunks(pieces: Iterable[memoryview]) -> Iterator[memoryview]:
    """Yield the same bytes in chunks of at most 8 MiB; small pieces come together in one."""
    small = bytearray()
    for piece in pieces:
        if small and (piece.nbytes >= GATHER_BYTES or len(small) + piece.nbytes > CHUNK_BYTES):
            yield memoryview(small)
            small = bytearray()
        if piece.nbytes < GATHER_BYTES:
            small += piece
            continue
        for start in range(0, piece.nbytes, CHUNK_BYTES):
            yield piece[start : start + CHUNK_BYTES]
    if small:
        yield memoryview(small)


def remove_tree(fs: Fs, path: Path) -> None:
    """Remove a folder and what is in it, or a file; links are removed and not followed."""
    with contextlib.suppress(FileNotFoundError):  # another process was first
        if not fs.is_folder(path):
            fs.unlink(path)
            return
        for name in fs.list_names(path):
            remove_tree(fs, path / name)
        fs.remove_folder(path)


def _failed(target: Path, err: OSError) -> WriteFailed:
    return WriteFailed(str(target), str(err), errno=err.errno)
