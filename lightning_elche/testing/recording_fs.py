"""A file system in memory that knows what a power cut may leave."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from typing_extensions import override

from lightning_elche.partition.fs import Fs

__all__ = ["File", "Folder", "RecordingFs"]


@dataclass(eq=False)
class File:
    """Bytes as they are, and as they are on the disk."""

    data: bytearray = field(default_factory=bytearray)
    durable: bytes = b""


@dataclass(eq=False)
class Folder:
    """Names as they are, as they are on the disk, and the changes in between."""

    entries: dict[str, File | Folder] = field(default_factory=dict)
    durable: dict[str, File | Folder] = field(default_factory=dict)
    pending: list[Callable[[dict[str, Any]], None]] = field(default_factory=list)
    origin: Folder | None = None  # what this is a state of

    def change(self, apply: Callable[[dict[str, Any]], None]) -> None:
        """Apply a change, which is not on the disk yet."""
        apply(self.entries)
        self.pending.append(apply)


class RecordingFs(Fs):
    """A file system in memory that knows what a power cut may leave.

    Of each folder, the changes since its last fsync survive up to any of them. A file that was not
    synced since it was written may be whole, empty, half, zeros, or what it was. What is moved to
    another folder may be found in both, and is in one of them as long as both can be reached.

    Args:
        root: What is there at first.
        left_out: Number of a call of `fsync` or `fsync_folder` that does nothing.
        on_change: Is called after each operation that changes anything.
    """

    def __init__(
        self,
        root: Folder | None = None,
        *,
        left_out: int | None = None,
        on_change: Callable[[RecordingFs], None] | None = None,
    ) -> None:
        self.root = root or Folder()
        self.num_syncs = 0
        self._left_out = left_out
        self._on_change = on_change
        self._open: dict[int, File] = {}
        self._moved: list[tuple[Folder, Folder]] = []
        self._numbers = itertools.count(3)

    def states(self) -> Iterator[RecordingFs]:
        """Yield what may be found after a power cut at this moment."""
        for folder in _folder_states(self.root):
            there = {id(one.origin) for one in _folders(folder)}
            if all(id(to) not in there or id(moved) in there for moved, to in self._moved):
                yield RecordingFs(folder)

    def node(self, path: Path) -> File | Folder:
        """Return what is at a path."""
        node: File | Folder = self.root
        for part in path.parts[1:]:
            if not isinstance(node, Folder):
                raise NotADirectoryError(errno.ENOTDIR, str(path))
            if part not in node.entries:
                raise FileNotFoundError(errno.ENOENT, str(path))
            node = node.entries[part]
        return node

    def folder(self, path: Path) -> Folder:
        """Return the folder at a path."""
        node = self.node(path)
        if not isinstance(node, Folder):
            raise NotADirectoryError(errno.ENOTDIR, str(path))
        return node

    @override
    def lexists(self, path: Path) -> bool:
        try:
            self.node(path)
        except OSError:
            return False
        return True

    @override
    def is_folder(self, path: Path) -> bool:
        return self.lexists(path) and isinstance(self.node(path), Folder)

    @override
    def list_names(self, folder: Path) -> Sequence[str]:
        return sorted(self.folder(folder).entries)

    @override
    def modified_at(self, path: Path) -> float:
        self.node(path)
        return 0.0

    @override
    def free_bytes(self, folder: Path) -> int:
        return 1 << 40

    @override
    def make_folder(self, path: Path, mode: int) -> None:
        self._add(path, Folder())

    @override
    def create(self, path: Path) -> int:
        file = File()
        self._add(path, file)
        return self._opened(file)

    @override
    def open_write(self, path: Path) -> int:
        return self.open_read(path)

    @override
    def open_read(self, path: Path) -> int:
        node = self.node(path)
        if not isinstance(node, File):
            raise IsADirectoryError(errno.EISDIR, str(path))
        return self._opened(node)

    @override
    def size(self, descriptor: int) -> int:
        return len(self._open[descriptor].data)

    @override
    def pread_into(self, descriptor: int, buffer: memoryview, offset: int) -> int:
        data = self._open[descriptor].data[offset : offset + buffer.nbytes]
        buffer[: len(data)] = data
        return len(data)

    @override
    def pwrite(self, descriptor: int, data: memoryview, offset: int) -> int:
        held = self._open[descriptor].data
        held.extend(bytes(max(offset - len(held), 0)))
        held[offset : offset + data.nbytes] = data
        self._changed()
        return data.nbytes

    @override
    def fsync(self, descriptor: int) -> None:
        file = self._open[descriptor]
        if self._is_synced():
            file.durable = bytes(file.data)
        self._changed()

    @override
    def close(self, descriptor: int) -> None:
        del self._open[descriptor]

    @override
    def fsync_folder(self, path: Path) -> None:
        folder = self.folder(path)
        if self._is_synced():
            folder.durable = dict(folder.entries)
            folder.pending.clear()
        self._changed()

    @override
    def rename(self, source: Path, target: Path) -> None:
        node = self.node(source)
        if self.lexists(target) and self.folder(target).entries:
            raise OSError(errno.ENOTEMPTY, str(target))
        old, new = source.name, target.name
        if source.parent == target.parent:

            def move(entries: dict[str, Any]) -> None:
                entries.pop(old, None)
                entries[new] = node

            self.folder(source.parent).change(move)
        else:
            assert isinstance(node, Folder)
            self._moved.append((node, self.folder(target.parent)))
            self.folder(target.parent).change(lambda entries: entries.update({new: node}))
            self.folder(source.parent).change(lambda entries: entries.pop(old, None))
        self._changed()

    @override
    def unlink(self, path: Path) -> None:
        if isinstance(self.node(path), Folder):
            raise IsADirectoryError(errno.EISDIR, str(path))
        self._remove(path)

    @override
    def remove_folder(self, path: Path) -> None:
        if self.folder(path).entries:
            raise OSError(errno.ENOTEMPTY, str(path))
        self._remove(path)

    def _add(self, path: Path, node: File | Folder) -> None:
        folder = self.folder(path.parent)
        if path.name in folder.entries:
            raise FileExistsError(errno.EEXIST, str(path))
        folder.change(lambda entries: entries.update({path.name: node}))
        self._changed()

    def _remove(self, path: Path) -> None:
        self.folder(path.parent).change(lambda entries: entries.pop(path.name, None))
        self._changed()

    def _opened(self, file: File) -> int:
        number = next(self._numbers)
        self._open[number] = file
        return number

    def _is_synced(self) -> bool:
        number, self.num_syncs = self.num_syncs, self.num_syncs + 1
        return number != self._left_out

    def _changed(self) -> None:
        if self._on_change is not None:
            self._on_change(self)


def _folder_states(folder: Folder) -> Iterator[Folder]:
    for length in range(len(folder.pending) + 1):
        entries = dict(folder.durable)
        for apply in folder.pending[:length]:
            apply(entries)
        # Nobody reads a temporary folder, so that one of its states is enough.
        names = sorted(name for name in entries if not name.startswith("."))
        for nodes in itertools.product(*(_node_states(entries[name]) for name in names)):
            found = dict(zip(names, nodes, strict=True))
            yield Folder(entries=dict(found), durable=dict(found), origin=folder)


def _folders(folder: Folder) -> Iterator[Folder]:
    yield folder
    for node in folder.entries.values():
        if isinstance(node, Folder):
            yield from _folders(node)


def _node_states(node: File | Folder) -> list[File | Folder]:
    if isinstance(node, Folder):
        return list(_folder_states(node))
    full = bytes(node.data)
    if node.durable == full:
        found = [full]
    else:
        found = [full, b"", bytes(len(full)), full[: len(full) // 2], node.durable]
    return [File(data=bytearray(data), durable=data) for data in dict.fromkeys(found)]
