"""Puts checkpoints where they belong: in the root, in quarantine, or in the archive."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from lightning_elche.partition.errors import (
    CheckpointError,
    DivergentWriters,
    DurabilityUncertain,
    WriteFailed,
)
from lightning_elche.partition.fs import Host
from lightning_elche.partition.manifest import Manifest, encode_manifest
from lightning_elche.partition.publish import Publisher, TargetExists, remove_tree
from lightning_elche.partition.read_checkpoint import (
    QUARANTINE,
    Depth,
    read_manifest,
    verify_checkpoint,
)
from lightning_elche.partition.store_config import StoreConfig
from lightning_elche.partition.store_names import owned_name
from lightning_elche.partition.store_seal import MakeSeal, Run, Seal, Sealing
from lightning_elche.partition.store_snapshot import Snapshot, is_segment

__all__ = ["Placing", "typed_errors"]

ARCHIVE = "archive"
UNREADABLE = "unreadable"


@contextlib.contextmanager
def typed_errors(path: Path | str) -> Iterator[None]:
    """Raise what the file system has to say as the error of a checkpoint."""
    try:
        yield
    except CheckpointError:
        raise
    except OSError as err:
        raise WriteFailed(str(path), str(err), errno=err.errno) from err


class Placing:
    """Writes checkpoints into the folders of a root, and moves them between these.

    Args:
        root: The folder.
        host: The file system, the clock and this process.
        config: How they are written.
        run: Calls a function for each of some items, as `map` does.
    """

    def __init__(self, root: Path, *, host: Host, config: StoreConfig, run: Run = map) -> None:
        self.publisher = Publisher(
            fs=host.fs, is_durable=config.durability == "fsync", dir_mode=config.dir_mode
        )
        self._root = root
        self._host = host
        self._config = config
        self._run = run

    def temp_name(self, step: int) -> str:
        """Return a new name for a temporary folder."""
        return owned_name("tmp", step, self._host.owner, self._host.new_uuid())

    def is_sharded(self, snapshot: Snapshot) -> bool:
        """Return whether each part of a checkpoint has a file of its own."""
        layout = self._config.layout
        return layout == "sharded" or (layout == "auto" and snapshot.num_hosts > 1)

    def place(
        self, target: Path, snapshot: Snapshot, *, sequence: int, make_seal: MakeSeal | None = None
    ) -> tuple[Manifest, bool]:
        """Write a checkpoint, unless an equal one is in its place.

        Args:
            target: Its place.
            snapshot: The state.
            sequence: Its number in the order of checkpoints.
            make_seal: Returns what writes it, by default this process alone.

        Returns:
            The manifest of what is there then, and whether it was written.
        """
        make = make_seal or partial(Seal, run=self._run)
        seal: Sealing = make(snapshot, is_sharded=self.is_sharded(snapshot))
        if self._host.fs.lexists(target):
            found = self._good_one(target)
            if found is not None and found.content_sha256 == seal.content_sha256():
                self._confirm(target)
                return found, False
        created = datetime.datetime.fromtimestamp(self._host.now(), datetime.timezone.utc)
        written: list[Manifest] = []

        def fill(folder: Path) -> bytes:
            manifest = seal.write(
                self.publisher,
                folder,
                sequence=sequence,
                created=created.isoformat(timespec="seconds"),
            )
            written.append(manifest)
            return encode_manifest(manifest)

        try:
            self.publisher.publish(target, lambda: self.temp_name(snapshot.step), fill)
        except TargetExists as err:
            return self._settle(err.temp, target, written[-1])
        depth: Depth = "full" if self._config.read_back else "shallow"
        found = verify_checkpoint(self._host.fs, target, depth)
        is_own = encode_manifest(found) == encode_manifest(written[-1])
        if not is_own and found.content_sha256 != written[-1].content_sha256:
            # Another process has removed this one, taking its writer for dead.
            raise WriteFailed(str(target), "the checkpoint of another writer is in its place")
        return found, is_own

    def _good_one(self, target: Path) -> Manifest | None:
        try:
            return verify_checkpoint(self._host.fs, target)
        except CheckpointError:
            return None

    def _confirm(self, target: Path) -> None:
        """Make sure of a checkpoint that was there: its writer may not have got so far."""
        try:
            self.publisher.sync_folder(target.parent)
        except OSError as err:
            raise DurabilityUncertain(str(target), str(err)) from err

    def _settle(self, temp: Path, target: Path, own: Manifest) -> tuple[Manifest, bool]:
        """Decide between a finished checkpoint and the one in its place."""
        other = self._good_one(target)
        if other is None:
            self.set_aside(target, "rejected")
            try:
                self.publisher.move(temp, target)
            except TargetExists as err:  # a third writer; the next attempt finds its checkpoint
                self.publisher.discard(temp)
                raise WriteFailed(str(target), "others write it at the same time") from err
            return own, True
        if other.content_sha256 != own.content_sha256:
            self.set_aside(temp, "divergent", own.name)
            raise DivergentWriters(str(target), other.content_sha256, own.content_sha256)
        self.publisher.discard(temp)
        self._confirm(target)
        return other, False

    def set_aside(self, path: Path, reason: str, name: str | None = None) -> None:
        """Move a folder to quarantine."""
        aside = f"{reason}-{name or path.name}-{self._host.new_uuid()[:8]}"
        folder = self.quarantine_folder()
        self._host.fs.rename(path, folder / aside)
        # The new name first: with the old one gone and no new one, it would be lost.
        self.publisher.sync_folder(folder)
        self.publisher.sync_folder(path.parent)
        self.trim_quarantine(keep=aside)

    def quarantine_folder(self) -> Path:
        """Return the folder of what is never resumed from; make it if need be."""
        folder = self._root / QUARANTINE
        if not self._host.fs.lexists(folder):
            self.publisher.make_root(folder)
        return folder

    def trim_quarantine(self, *, keep: str) -> None:
        """Remove the oldest folders beyond `max_quarantined`, and never the one called `keep`."""
        fs, folder = self._host.fs, self._root / QUARANTINE
        others = [name for name in fs.list_names(folder) if name != keep]
        others.sort(key=lambda name: fs.modified_at(folder / name), reverse=True)
        for name in others[self._config.max_quarantined - 1 :]:
            remove_tree(fs, folder / name)

    def archive(self, name: str) -> None:
        """Move a checkpoint of the root to the folder of its segment."""
        fs = self._host.fs
        folder = self._root / ARCHIVE / self._segment_of(name)
        if fs.lexists(folder / name):
            folder = folder.with_name(f"{folder.name}-{self._host.new_uuid()[:8]}")
        self.publisher.make_root(folder)
        fs.rename(self._root / name, folder / name)
        self.publisher.sync_folder(folder)  # first, see `set_aside`
        self.publisher.sync_folder(self._root)

    def _segment_of(self, name: str) -> str:
        try:
            segment = read_manifest(self._host.fs, self._root / name).segment
        except CheckpointError:
            return UNREADABLE
        return segment if is_segment(segment) else UNREADABLE
