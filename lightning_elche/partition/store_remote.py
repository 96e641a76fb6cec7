"""Checkpoints in object storage: a manifest that comes last takes the place of the rename."""

from __future__ import annotations

import hashlib
from pathlib import Path

from lightning_elche.partition.errors import (
    CheckpointError,
    Corrupt,
    DivergentWriters,
    Incomplete,
    NoCheckpointFound,
    NoValidCheckpoint,
    WriteFailed,
)
from lightning_elche.partition.fs import Host
from lightning_elche.partition.fs_remote import RemoteFolder
from lightning_elche.partition.manifest import MANIFEST, Manifest, encode_manifest
from lightning_elche.partition.publish import Publisher, TargetExists, write_all
from lightning_elche.partition.read_checkpoint import read_manifest, verify_checkpoint
from lightning_elche.partition.read_manifest import parse_manifest
from lightning_elche.partition.retention import decide_fates, entry_of
from lightning_elche.partition.store_config import StoreConfig
from lightning_elche.partition.store_names import parse_checkpoint_name
from lightning_elche.partition.store_placing import Placing, typed_errors

__all__ = ["RemoteStore"]


class RemoteStore:
    """Copies checkpoints of a local root to an fsspec URL, and back.

    A checkpoint counts there once its manifest is there, which is written last and removed first.

    Args:
        remote: The folder of checkpoints.
        host: The local file system, the clock and this process.
        config: Which are kept.
    """

    def __init__(
        self, remote: RemoteFolder, *, host: Host, config: StoreConfig | None = None
    ) -> None:
        self._remote = remote
        self._host = host
        self._config = config or StoreConfig()

    def push(self, path: Path) -> bool:
        """Copy a published checkpoint, and return whether it was not there before.

        Raises:
            CheckpointError: If it must not be read.
            DivergentWriters: If there is another one of this step and label.
            WriteFailed: If it could not be written; what was there before counts still.
        """
        own = read_manifest(self._host.fs, path)
        with typed_errors(self._at(own.name)):
            return self._push(path, own)

    def pull(self, root: Path) -> Path:
        """Copy the newest checkpoint that can be resumed from to a local root, and verify it.

        Args:
            root: The local root; a good copy that is there already is not copied again.

        Raises:
            NoCheckpointFound: If there are none at all.
            NoValidCheckpoint: If there are some, and none is good.
        """
        rejections: dict[str, str] = {}
        manifests = self._manifests(rejections)
        for manifest in sorted(manifests, key=lambda one: (one.sequence, one.step), reverse=True):
            if not manifest.finite:
                rejections[manifest.name] = "not fit to resume from"
                continue
            try:
                return self._download(manifest, root / manifest.name)
            except CheckpointError as err:
                rejections[manifest.name] = str(err)
        if not rejections:
            raise NoCheckpointFound(self._remote.url)
        raise NoValidCheckpoint(self._remote.url, tuple(sorted(rejections.items())))

    def _push(self, path: Path, own: Manifest) -> bool:
        found = self._manifest(own.name)
        if found is None:
            self._upload(path, own)
            found = self._manifest(own.name)
            if found is None:
                raise WriteFailed(self._at(own.name), "its manifest is not there after all")
        elif found.content_sha256 == own.content_sha256:
            return False
        if found.content_sha256 != own.content_sha256:
            raise DivergentWriters(self._at(own.name), found.content_sha256, own.content_sha256)
        self._retain()
        return True

    def _at(self, name: str) -> str:
        return f"{self._remote.url.rstrip('/')}/{name}"

    def _manifest(self, name: str) -> Manifest | None:
        """Return what a checkpoint says of itself, `None` if it has no manifest."""
        data = self._remote.read(name, MANIFEST)
        return None if data is None else parse_manifest(data, self._at(name))

    def _manifests(self, rejections: dict[str, str]) -> list[Manifest]:
        found = []
        for name in self._remote.names():
            if parse_checkpoint_name(name) is not None:
                manifest = self._readable(name, rejections)
                found += [] if manifest is None else [manifest]
        return found

    def _readable(self, name: str, rejections: dict[str, str]) -> Manifest | None:
        try:
            manifest = self._manifest(name)
        except CheckpointError as err:
            rejections[name] = str(err)
            return None
        if manifest is not None and manifest.name != name:
            rejections[name] = f"it is the checkpoint {manifest.name}"
            return None
        return manifest

    def _upload(self, path: Path, own: Manifest) -> None:
        for name in own.files:
            self._remote.upload(path / name, own.name, name)
        self._remote.create(encode_manifest(own), own.name, MANIFEST)

    def _download(self, manifest: Manifest, target: Path) -> Path:
        placing = Placing(target.parent, host=self._host, config=self._config)
        placing.publisher.make_root(target.parent)
        if self._host.fs.lexists(target):
            try:
                self._compare(target, manifest)
            except (Corrupt, Incomplete):
                placing.set_aside(target, "rejected")
            else:
                return target

        def fill(folder: Path) -> bytes:
            for name in manifest.files:
                self._fetch(placing.publisher, folder, manifest, name)
            data = self._remote.read(manifest.name, MANIFEST)
            if data is None:
                raise Incomplete(self._at(manifest.name), "it was removed meanwhile")
            return data

        try:
            placing.publisher.publish(target, lambda: placing.temp_name(manifest.step), fill)
        except TargetExists as err:  # another process was first
            placing.publisher.discard(err.temp)
        self._compare(target, manifest)
        return target

    def _compare(self, target: Path, manifest: Manifest) -> None:
        found = verify_checkpoint(self._host.fs, target).content_sha256
        if found != manifest.content_sha256:
            raise DivergentWriters(str(target), found, manifest.content_sha256)

    def _fetch(self, publisher: Publisher, folder: Path, manifest: Manifest, name: str) -> None:
        digest, offset = hashlib.sha256(), 0
        with publisher.open_files([folder / name]) as (descriptor,):
            for block in self._remote.blocks(manifest.name, name):
                digest.update(block)
                write_all(publisher.fs, descriptor, block, offset)
                offset += block.nbytes
        if digest.hexdigest() != manifest.files[name].sha256:
            raise Corrupt(self._at(manifest.name), "its digest is another one", file=name)

    def _retain(self) -> None:
        entries = [entry_of(one, self._config.monitor) for one in self._manifests({})]
        for fate in decide_fates(entries, self._config):
            if fate.is_removed:
                self._remote.remove(fate.name, MANIFEST)
                self._remote.remove(fate.name)
