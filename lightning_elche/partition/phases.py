"""Phases that store the rows of each partition in a file of their own."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import Self

from lightning_elche.partition.executor import (
    PartitionContext,
    PartitionPayload,
    PartitionPhase,
)
from lightning_elche.partition.fs import Fs
from lightning_elche.partition.plan import PartitionId
from lightning_elche.partition.publish import chunks, write_all
from lightning_elche.partition.replay import ReplayFingerprint

__all__ = ["PartFiles", "StoredPart"]

Payload = PartitionPayload[Any]
READ_BYTES = 8 << 20


@dataclass
class StoredPart:
    """What is known of the file of a partition.

    Args:
        path: The file.
        num_bytes: Its length.
        fingerprint: That of the rows.
        sha256: That of the file, once it is written.
    """

    path: Path
    num_bytes: int
    fingerprint: ReplayFingerprint | None = None
    sha256: str | None = None


class PartFiles:
    """Stores the rows of partitions: snapshot, fingerprint, write, fsync, read back.

    The file of a partition is `step-<step>.part-<id>`, of the step that the rows are of before the
    phases; it must not exist. Files are closed at the end of the `with` block at the latest.

    Args:
        fs: The file system.
        folder: Where the files go; it exists.

    Example:
        >>> import tempfile
        >>> from lightning_elche.partition.fs import LocalFs
        >>> from lightning_elche.partition.columns import ColumnState
        >>> from lightning_elche.partition.plane import PartitionPlane
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with PartFiles(LocalFs(), Path(folder)) as files:
        ...         plane = PartitionPlane(ColumnState([1, 2], {"x": [0, 1]}))
        ...         for phase in files.phases:
        ...             plane.add_phase(phase.name, phase.function, is_persisting=True)
        ...         reports = plane.step().reports
        ...     [file.name for file in Path(folder).iterdir()]
        ['step-00000000.part-0000']
    """

    def __init__(self, fs: Fs, folder: Path) -> None:
        self._fs = fs
        self._folder = folder
        self._data: dict[PartitionId, bytes] = {}
        self._descriptors: dict[PartitionId, int] = {}
        self.stored: dict[PartitionId, StoredPart] = {}

    @property
    def phases(self) -> tuple[PartitionPhase, ...]:
        """The phases in their order."""
        functions = {
            "snapshot": self.snapshot,
            "fingerprint": self.fingerprint,
            "write": self.write,
            "fsync": self.fsync,
            "read_back": self.read_back,
        }
        return tuple(PartitionPhase(*named, is_persisting=True) for named in functions.items())

    def snapshot(self, context: PartitionContext, payload: Payload) -> None:
        """Copy the rows as they are now."""
        data = self._data[context.partition_id] = payload.state.to_bytes()
        name = f"step-{context.step:08d}.part-{context.partition_id.value:04d}"
        self.stored[context.partition_id] = StoredPart(self._folder / name, len(data))

    def fingerprint(self, context: PartitionContext, payload: Payload) -> None:
        """Take the fingerprint of the rows."""
        self.stored[context.partition_id].fingerprint = payload.state.fingerprint(context.step)

    def write(self, context: PartitionContext, _payload: Payload) -> None:
        """Write the copy into a new file, and hash it meanwhile."""
        part, data = self.stored[context.partition_id], self._data.pop(context.partition_id)
        descriptor = self._descriptors[context.partition_id] = self._fs.create(part.path)
        digest, offset = hashlib.sha256(), 0
        for chunk in chunks([memoryview(data)]):
            digest.update(chunk)
            write_all(self._fs, descriptor, chunk, offset)
            offset += chunk.nbytes
        part.sha256 = digest.hexdigest()

    def fsync(self, context: PartitionContext, _payload: Payload) -> None:
        """Wait until the file and its name are on the disk, and close it."""
        descriptor = self._descriptors.pop(context.partition_id)
        try:
            self._fs.fsync(descriptor)
        finally:
            self._fs.close(descriptor)
        self._fs.fsync_folder(self._folder)

    def read_back(self, context: PartitionContext, _payload: Payload) -> None:
        """Check that the file holds what was written.

        Raises:
            OSError: If it does not.
        """
        part = self.stored[context.partition_id]
        if self._sha256_of(part.path) != part.sha256:
            raise OSError(f"{part.path} does not hold the bytes that were written")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        while self._descriptors:
            self._fs.close(self._descriptors.popitem()[1])

    def _sha256_of(self, path: Path) -> str:
        digest, offset = hashlib.sha256(), 0
        buffer = memoryview(bytearray(READ_BYTES))
        descriptor = self._fs.open_read(path)
        try:
            while count := self._fs.pread_into(descriptor, buffer, offset):
                digest.update(buffer[:count])
                offset += count
        finally:
            self._fs.close(descriptor)
        return digest.hexdigest()
