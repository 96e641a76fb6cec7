"""A folder where an fsspec URL leads: objects without renames."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from pathlib import Path

import fsspec  # type: ignore[import-untyped]  # it has no types

__all__ = ["RemoteFolder"]

BLOCK_BYTES = 8 << 20


class RemoteFolder:
    """Reads and writes the objects below a URL.

    Args:
        url: Such as "s3://bucket/runs/a".
        storage_options: What the file system needs, such as credentials.
    """

    def __init__(self, url: str, *, storage_options: Mapping[str, object] | None = None) -> None:
        self.url = url
        self._files, self._root = fsspec.core.url_to_fs(url, **(storage_options or {}))

    def names(self) -> list[str]:
        """Return the names of folders below this one, sorted."""
        self._files.invalidate_cache()
        if not self._files.isdir(self._root):
            return []
        found = self._files.ls(self._root, detail=True)
        folders = (entry["name"].rstrip("/") for entry in found if entry["type"] == "directory")
        return sorted(posixpath.basename(folder) for folder in folders)

    def read(self, *parts: str) -> bytes | None:
        """Return an object, `None` if there is none."""
        try:
            data: bytes = self._files.cat_file(self._path(*parts))
        except FileNotFoundError:
            return None
        return data

    def blocks(self, *parts: str) -> Iterator[memoryview]:
        """Yield a large object in blocks."""
        with self._files.open(self._path(*parts), "rb") as file:
            while block := file.read(BLOCK_BYTES):
                yield memoryview(block)

    def upload(self, source: Path, *parts: str) -> None:
        """Write a file as an object, over one that is there.

        Raises:
            OSError: If it has not the length of the file then.
        """
        path = self._path(*parts)
        self._files.makedirs(posixpath.dirname(path), exist_ok=True)
        self._files.put_file(str(source), path)
        self._files.invalidate_cache(posixpath.dirname(path))
        stored, expected = self._files.size(path), source.stat().st_size
        if stored != expected:
            raise OSError(f"{path} has {stored} of {expected} bytes after it was written")

    def create(self, data: bytes, *parts: str) -> bool:
        """Write an object unless there is one, and return whether it is this one.

        Not all services can do so at once, so that it is read back in any case.
        """
        path = self._path(*parts)
        try:
            self._files.pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
        self._files.invalidate_cache(posixpath.dirname(path))
        return self.read(*parts) == data

    def remove(self, *parts: str) -> None:
        """Remove an object, or a folder and all in it, if there is one."""
        path = self._path(*parts)
        if self._files.exists(path):
            self._files.rm(path, recursive=True)
        self._files.invalidate_cache()

    def _path(self, *parts: str) -> str:
        return posixpath.join(self._root, *parts)
