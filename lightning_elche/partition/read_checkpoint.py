"""Reads a checkpoint; nothing is returned before all of it is known to be right."""

from __future__ import annotations

import contextlib
import errno
import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from lightning_elche.contracts.runfolder.checkpoint_format import MAX_MANIFEST_BYTES
from lightning_elche.partition.errors import (
    Corrupt,
    Incomplete,
    NoCheckpointFound,
    UnsafePath,
)
from lightning_elche.partition.fs import Fs
from lightning_elche.partition.image import HostTensor, Layout
from lightning_elche.partition.manifest import (
    MANIFEST,
    REPLAY,
    TREE,
    GroupRecord,
    Manifest,
    PartRecord,
)
from lightning_elche.partition.read_manifest import layouts_of, parse_manifest
from lightning_elche.partition.rml import tensor_lanes
from lightning_elche.partition.tree import read_nodes

__all__ = ["Checkpoint", "Depth", "read_checkpoint", "read_manifest", "verify_checkpoint"]

T = TypeVar("T")

QUARANTINE = "quarantine"

# "shallow": manifest, names and lengths; "full": all digests; "deep": lanes and the tree, too.
Depth = Literal["shallow", "full", "deep"]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint in memory.

    Attributes:
        path: Where it lies.
        manifest: What it says of itself.
        groups: Tensors by name, by group; they share the memory of their group.
        tree: The rest of the state, for `decode_tree`.
        replay: Lines of the record of replay since its parent.
    """

    path: Path
    manifest: Manifest
    groups: Mapping[str, Mapping[str, HostTensor]]
    tree: bytes
    replay: bytes


def read_manifest(fs: Fs, path: Path) -> Manifest:
    """Return what a checkpoint says of itself, if its names and lengths agree with it.

    Raises:
        NoCheckpointFound: If there is no such folder.
        CheckpointError: If it must not be read; a subclass says why.
    """
    with _opened(fs, path) as opened:
        return opened.manifest


def verify_checkpoint(fs: Fs, path: Path, depth: Depth = "full") -> Manifest:
    """Check a checkpoint, one group in memory at a time, and return what it says of itself.

    Args:
        fs: The file system.
        path: Of the checkpoint.
        depth: How much is checked.

    Raises:
        NoCheckpointFound: If there is no such folder.
        CheckpointError: If it must not be read; a subclass says why.
    """
    with _opened(fs, path) as opened:
        if depth == "shallow":
            return opened.manifest
        for name in opened.manifest.groups:
            image = opened.image(name, is_deep=depth == "deep")
            if depth == "deep":
                opened.check_lanes(name, image)
        tree, _ = opened.file(TREE), opened.file(REPLAY)
        if depth == "deep":
            try:
                read_nodes(tree)
            except ValueError as err:
                raise Corrupt(str(path), str(err), file=TREE) from err
        return opened.manifest


def read_checkpoint(fs: Fs, path: Path, *, groups: Collection[str] | None = None) -> Checkpoint:
    """Return a checkpoint whose digests are right.

    Args:
        fs: The file system.
        path: Of the checkpoint.
        groups: The groups to read, by default all. The others are not verified.

    Raises:
        NoCheckpointFound: If there is no such folder.
        CheckpointError: If it must not be read; a subclass says why.
    """
    with _opened(fs, path) as opened:
        manifest = opened.manifest
        wanted = manifest.groups if groups is None else groups
        tree, replay = opened.file(TREE), opened.file(REPLAY)
        images = {name: opened.image(name) for name in wanted}
    return Checkpoint(
        path=path,
        manifest=manifest,
        groups={name: _tensors(manifest.groups[name], image) for name, image in images.items()},
        tree=tree,
        replay=replay,
    )


class _Opened:
    """A checkpoint whose files are open, so that it can be read even if it is being deleted."""

    def __init__(
        self, fs: Fs, path: Path, manifest: Manifest, descriptors: Mapping[str, int]
    ) -> None:
        self.manifest = manifest
        self._fs = fs
        self._path = path
        self._descriptors = descriptors
        self._layouts: dict[str, Layout] = layouts_of(manifest)

    def check_folder(self, names: Collection[str]) -> None:
        """Check the name of the folder, and names and lengths of what is in it."""
        path, files = str(self._path), self.manifest.files
        if not _is_named_after(self._path, self.manifest.name):
            raise Corrupt(path, f"it is the checkpoint {self.manifest.name}", file=MANIFEST)
        for name in sorted(set(names) - {MANIFEST, *files}):
            raise Corrupt(path, "the file is not one of this checkpoint", file=name)
        for name, told in files.items():
            size = _size(self._fs, self._path, name, self._descriptors[name])
            if size < told.bytes:
                raise Incomplete(path, f"{name} has {size} of {told.bytes} bytes")
            if size > told.bytes:
                raise Corrupt(path, f"it has {size} bytes, not {told.bytes}", file=name)

    def file(self, name: str) -> bytes:
        """Return a small file."""
        told = self.manifest.files[name]
        data = _read(self._fs, self._path, name, self._descriptors[name], told.bytes)
        if hashlib.sha256(data).hexdigest() != told.sha256:
            raise Corrupt(str(self._path), "its digest is another one", file=name)
        return data.tobytes()

    def image(self, name: str, *, is_deep: bool = False) -> memoryview:
        """Return the bytes of a group."""
        group = self.manifest.groups[name]
        image = np.empty(group.bytes, dtype=np.uint8).data
        at = 0
        for file in group.files:
            size = self.manifest.files[file].bytes
            into = image[at : at + size]
            _fill(self._fs, self._path, file, self._descriptors[file], into)
            at += size
        is_right = hashlib.sha256(image).hexdigest() == group.sha256
        if not is_right or is_deep:
            self._check_parts(group, image)
        header = self._layouts[name].header
        if not is_right or image[: len(header)] != header:
            raise Corrupt(str(self._path), "its digest is another one", file=group.files[0])
        return image

    def _check_parts(self, group: GroupRecord, image: memoryview) -> None:
        """Name the partition whose bytes are not those that it has written."""
        for part, data in _parts(group, image):
            if hashlib.sha256(data).hexdigest() != part.sha256:
                raise Corrupt(
                    str(self._path),
                    "its digest is another one",
                    file=part.file,
                    partition=part.partition,
                    rows=(part.row_start, part.row_end),
                )

    def check_lanes(self, name: str, image: memoryview) -> None:
        """Check the lanes of each tensor."""
        group = self.manifest.groups[name]
        for one, tensor in zip(group.tensors, _tensors(group, image).values(), strict=True):
            owner = one.slot.alias_of or tensor.name
            lanes = tensor_lanes(f"{name}/{owner}", tensor.dtype, tensor.shape, tensor.data)
            if lanes != one.lanes:
                reason = f"tensor {tensor.name!r} has other lanes"
                raise Corrupt(str(self._path), reason, file=group.files[0])


@contextlib.contextmanager
def _opened(fs: Fs, path: Path) -> Iterator[_Opened]:
    """Open all files of a checkpoint, then check all but their content."""
    if not _asked(path, ".", lambda: fs.is_folder(path)):
        if _asked(path, ".", lambda: fs.lexists(path)):
            raise UnsafePath(str(path), "it is no folder")
        raise NoCheckpointFound(str(path))
    with contextlib.ExitStack() as closing:
        names = _asked(path, MANIFEST, lambda: fs.list_names(path))

        def open_file(name: str) -> int:
            descriptor = _asked(path, name, lambda: fs.open_read(path / name))
            closing.callback(_close, fs, descriptor)
            return descriptor

        descriptor = open_file(MANIFEST)
        size = _size(fs, path, MANIFEST, descriptor)
        if size > MAX_MANIFEST_BYTES:
            raise Corrupt(str(path), f"it has {size} bytes", file=MANIFEST)
        data = _read(fs, path, MANIFEST, descriptor, size)
        manifest = parse_manifest(data.tobytes(), str(path))
        opened = _Opened(fs, path, manifest, {name: open_file(name) for name in manifest.files})
        opened.check_folder(names)
        yield opened


def _is_named_after(path: Path, name: str) -> bool:
    """Return whether a folder has its name; in quarantine there is a reason before it."""
    if path.parent.name == QUARANTINE:
        return f"-{name}-" in f"-{path.name}-"
    return path.name == name


def _close(fs: Fs, descriptor: int) -> None:
    with contextlib.suppress(OSError):  # nothing was written that could be lost
        fs.close(descriptor)


def _size(fs: Fs, path: Path, name: str, descriptor: int) -> int:
    return _asked(path, name, lambda: fs.size(descriptor))


def _read(fs: Fs, path: Path, name: str, descriptor: int, size: int) -> memoryview:
    data = memoryview(bytearray(size))
    _fill(fs, path, name, descriptor, data)
    return data


def _fill(fs: Fs, path: Path, name: str, descriptor: int, into: memoryview) -> None:
    at = 0
    while at < into.nbytes:
        rest, start = into[at:], at
        count = _asked(path, name, lambda: fs.pread_into(descriptor, rest, start))  # noqa: B023  # called at once
        if count == 0:
            raise Incomplete(str(path), f"{name} has {at} of {into.nbytes} bytes")
        at += count


def _asked(path: Path, name: str, ask: Callable[[], T]) -> T:
    """Return what the file system says, or raise what its error means for a checkpoint."""
    try:
        return ask()
    except FileNotFoundError as err:
        raise Incomplete(str(path), f"{name} is missing") from err
    except IsADirectoryError as err:
        raise UnsafePath(str(path / name), "it is no plain file") from err
    except OSError as err:
        if err.errno == errno.ELOOP:
            raise UnsafePath(str(path / name), "it is a link") from err
        raise Corrupt(str(path), f"it cannot be read: {err}", file=name) from err


def _parts(group: GroupRecord, image: memoryview) -> Iterator[tuple[PartRecord, memoryview]]:
    at = 0
    for part in group.parts:
        yield part, image[at : at + part.bytes]
        at += part.bytes


def _tensors(group: GroupRecord, image: memoryview) -> dict[str, HostTensor]:
    tensors = {}
    for one in group.tensors:
        slot = one.slot
        tensors[slot.name] = HostTensor(
            name=slot.name,
            dtype=slot.dtype,
            shape=slot.shape,
            data=image[slot.offset : slot.offset + slot.nbytes],
            logical_dtype=slot.logical_dtype,
            alias_of=slot.alias_of,
        )
    return tensors
