"""Writes the files of a snapshot that is in the memory of this process."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from lightning_elche.partition.fnv import Lanes
from lightning_elche.partition.image import HostTensor, pieces
from lightning_elche.partition.image_nan import has_nan
from lightning_elche.partition.manifest import (
    REPLAY,
    TREE,
    FileRecord,
    GroupRecord,
    Manifest,
    content_sha256,
    row_space_order,
    value_of_groups,
)
from lightning_elche.partition.publish import Publisher, chunks, write_all
from lightning_elche.partition.rml import sum_lanes, tensor_lanes
from lightning_elche.partition.rows import TensorCut
from lightning_elche.partition.store_parts import (
    PlacedPart,
    Receipt,
    file_records,
    group_records,
    place_parts,
    write_part,
)
from lightning_elche.partition.store_snapshot import Snapshot

__all__ = ["MakeSeal", "Run", "Seal", "Sealing", "lanes_of_cut", "manifest_of"]

T = TypeVar("T")
R = TypeVar("R")
Job = tuple[float, Callable[[], None]]  # how long it takes relative to others

WRITE, HASH, LANES, LOOK = 1.0, 0.7, 0.4, 0.1  # about, for one byte


class Run(Protocol):
    """Calls a function for each item, as `map` does, perhaps on several threads."""

    def __call__(self, function: Callable[[T], R], items: Iterable[T], /) -> Iterable[R]:
        """Return the results in the order of the items."""
        ...


class Sealing(Protocol):
    """Writes the files of a snapshot."""

    def content_sha256(self) -> str | None:
        """Return the digest of the content without writing it; `None` if that cannot be told."""
        ...

    def write(self, publisher: Publisher, folder: Path, *, sequence: int, created: str) -> Manifest:
        """Write all files but the manifest into `folder`, and return the manifest."""
        ...


class MakeSeal(Protocol):
    """Returns what writes a snapshot."""

    def __call__(self, snapshot: Snapshot, *, is_sharded: bool) -> Sealing:
        """Do it."""
        ...


@dataclass
class _Found:
    """What jobs have found, each in a place of its own."""

    digests: dict[str, str] = field(default_factory=dict)
    sha256: dict[PlacedPart, str] = field(default_factory=dict)  # of parts that are not the whole
    lanes: dict[PlacedPart, tuple[Lanes, ...]] = field(default_factory=dict)
    nans: list[bool] = field(default_factory=list)
    synced: set[int] = field(default_factory=set)


class Seal:
    """Writes a snapshot, in parts that may be written at once.

    Args:
        snapshot: The state.
        is_sharded: Whether each part has a file of its own.
        run: Calls a function for each of some items, as `map` does; that of a pool of threads makes
            use of several cores, since digests and system calls run without the interpreter lock.

    Raises:
        PartitionPlanError: If the plan is one for another number of rows.
    """

    def __init__(self, snapshot: Snapshot, *, is_sharded: bool, run: Run = map) -> None:
        self.snapshot = snapshot
        self._run = run
        self._layouts = snapshot.layouts()
        self._parts = place_parts(self._layouts, snapshot.plan, is_sharded=is_sharded)

    def content_sha256(self) -> str:
        """Return the digest of the content, without writing it."""
        groups = dict(zip(self._layouts, self._run(self._hash, self._layouts), strict=True))
        tree = hashlib.sha256(self.snapshot.tree).hexdigest()
        return content_sha256(self.snapshot.step, self.snapshot.sync_index, groups, tree)

    def write(self, publisher: Publisher, folder: Path, *, sequence: int, created: str) -> Manifest:
        """Write all files but the manifest into `folder`, and return the manifest."""
        snapshot = self.snapshot
        groups, has_model_nan = self._write_images(publisher, folder)
        files = {
            **file_records(groups),
            TREE: publisher.write_file(folder / TREE, snapshot.tree),
            REPLAY: publisher.write_file(folder / REPLAY, snapshot.replay),
        }
        return manifest_of(
            snapshot,
            groups,
            files,
            sequence=sequence,
            created=created,
            finite=snapshot.is_sound and not has_model_nan,
            is_durable=publisher.is_durable,
        )

    def _write_images(
        self, publisher: Publisher, folder: Path
    ) -> tuple[dict[str, GroupRecord], bool]:
        """Write the images, and return what they are and whether the model has NaN."""
        names = list(dict.fromkeys(part.file for part in self._parts))
        found = _Found()
        with publisher.open_files(
            [folder / name for name in names], run=self._run, synced=found.synced
        ) as opened:
            descriptors = dict(zip(names, opened, strict=True))
            jobs = [*self._hashes(found), *self._looks(found)]
            for part in self._parts:
                size, descriptor = part.part.nbytes, descriptors[part.file]
                write = partial(self._write, part, publisher, descriptor, found)
                jobs.append((WRITE * size, write))
                jobs.append((LANES * size, partial(self._take_lanes, part, found)))
            # All at once, the longest first, so that no thread is left without work early.
            jobs.sort(key=lambda job: job[0], reverse=True)
            with _Jobs() as started:
                list(self._run(started.call, [job for _, job in jobs]))
        receipts = {
            part: Receipt(found.sha256.get(part, found.digests[part.group]), found.lanes[part])
            for part in self._parts
        }
        plan, step = self.snapshot.plan, self.snapshot.step
        groups = group_records(self._layouts, receipts, found.digests, plan=plan, step=step)
        return groups, any(found.nans)

    def _hashes(self, found: _Found) -> list[Job]:
        """Return the jobs that take the digests of whole images."""

        def digest(name: str) -> None:
            found.digests[name] = self._hash(name)

        return [(HASH * one.nbytes, partial(digest, name)) for name, one in self._layouts.items()]

    def _looks(self, found: _Found) -> list[Job]:
        """Return the jobs that look for NaN in the model."""

        def look(tensor: HostTensor) -> None:
            found.nans.append(has_nan(tensor))

        model = self.snapshot.groups.get("model", ())
        return [(LOOK * one.data.nbytes, partial(look, one)) for one in model]

    def _write(
        self, placed: PlacedPart, publisher: Publisher, descriptor: int, found: _Found
    ) -> None:
        part, is_whole = placed.part, placed.part.nbytes == self._layouts[placed.group].nbytes
        data = self._chunks(placed.group, part.offset, part.offset + part.nbytes)
        if not is_whole:
            sha256 = write_part(publisher.fs, descriptor, placed.offset, data)
            found.sha256[placed] = sha256
            return
        # The digest of the only part is that of the image, which another thread takes.
        offset = placed.offset
        for chunk in data:
            write_all(publisher.fs, descriptor, chunk, offset)
            offset += chunk.nbytes
        publisher.sync(descriptor)
        found.synced.add(descriptor)

    def _take_lanes(self, placed: PlacedPart, found: _Found) -> None:
        tensors = {tensor.name: tensor for tensor in self.snapshot.groups[placed.group]}
        cuts = placed.part.cuts
        found.lanes[placed] = tuple(lanes_of_cut(tensors[cut.tensor.name], cut) for cut in cuts)

    def _chunks(self, name: str, start: int, stop: int) -> Iterator[memoryview]:
        tensors = self.snapshot.groups[name]
        return chunks(pieces(self._layouts[name], tensors, start=start, stop=stop))

    def _hash(self, name: str) -> str:
        digest = hashlib.sha256()
        for chunk in self._chunks(name, 0, self._layouts[name].nbytes):
            digest.update(chunk)
        return digest.hexdigest()


class _Jobs:
    """Waits for those that run before files are closed, also if one of them has failed.

    Else one could go on to write to a descriptor that is another file by then.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._num_running = 0
        self._has_ended = False

    def __enter__(self) -> _Jobs:
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._has_ended = True
            self._changed.wait_for(lambda: self._num_running == 0)

    def call(self, job: Callable[[], None]) -> None:
        """Run a job, unless it comes too late."""
        with self._changed:
            if self._has_ended:
                return
            self._num_running += 1
        try:
            job()
        finally:
            with self._changed:
                self._num_running -= 1
                self._changed.notify_all()


def manifest_of(
    snapshot: Snapshot,
    groups: dict[str, GroupRecord],
    files: dict[str, FileRecord],
    *,
    sequence: int,
    created: str,
    finite: bool,
    is_durable: bool,
) -> Manifest:
    """Return the manifest of a snapshot whose files are written."""
    inside = {name: groups[name].stored for name in row_space_order(groups)}
    return Manifest(
        step=snapshot.step,
        sync_index=snapshot.sync_index,
        sequence=sequence,
        segment=snapshot.segment,
        run_id=snapshot.run_id,
        label=snapshot.label,
        created=created,
        parent=snapshot.parent,
        world=snapshot.world,
        finite=finite,
        durability="fsync" if is_durable else "flush",
        env=snapshot.env,
        plan=snapshot.plan,
        groups=groups,
        files=files,
        value=value_of_groups(snapshot.step, inside),
        lanes=sum_lanes(one.lanes for tensors in inside.values() for one in tensors),
        metrics=snapshot.metrics,
        dropped=snapshot.dropped,
    )


def lanes_of_cut(tensor: HostTensor, cut: TensorCut) -> Lanes:
    """Return the lanes of some rows of a tensor."""
    own = cut.tensor
    data = tensor.data[cut.byte_start : cut.byte_end]
    return tensor_lanes(own.full_name, own.dtype, own.shape, data, first_row=cut.first_row)
