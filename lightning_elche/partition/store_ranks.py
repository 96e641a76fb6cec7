"""A checkpoint that several processes write, each its own rows; rank 0 puts it in its place."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from lightning_elche.contracts.runfolder.checkpoint_format import OPTIMIZER
from lightning_elche.partition.image import ITEM_BYTES, HostTensor, Layout, Slot, layout_of, pieces
from lightning_elche.partition.image_nan import has_nan
from lightning_elche.partition.manifest import REPLAY, TREE, Manifest, is_in_row_space
from lightning_elche.partition.publish import Publisher, SyncFailed, chunks
from lightning_elche.partition.store_parts import (
    PlacedPart,
    Receipt,
    file_records,
    group_records,
    place_parts,
    sha256_of_files,
    write_part,
)
from lightning_elche.partition.store_seal import Run, lanes_of_cut, manifest_of
from lightning_elche.partition.store_snapshot import Snapshot
from lightning_elche.partition.tree import subtree, with_subtree

__all__ = ["KEPT", "OPTIMIZERS", "Peers", "RankSeal"]

Message = Mapping[str, Any]  # JSON-serialisable
Ranges = dict[tuple[str, str], list[tuple[int, int]]]

OPTIMIZERS = "optimizer_states"
KEPT = "elche.optimizer_states"  # those of the ranks after the first, by rank


class Peers(Protocol):
    """The other processes; all of them make the same calls in the same order."""

    rank: int
    world_size: int

    def swap(self, message: Message, /) -> list[Message]:
        """Return the messages of all ranks, in rank order.

        Raises:
            OSError: If a rank cannot be reached.
        """
        ...


@dataclass(frozen=True)
class _Written:
    """What all ranks have told of their parts."""

    receipts: Mapping[str, Receipt]
    layouts: Mapping[str, Layout]
    optimizers: Mapping[str, Any]
    has_nan: bool


class RankSeal:
    """Writes what one rank has of a snapshot.

    Order on every rank: the folder that rank 0 tells, then the receipts of all, then the digests
    of images with several parts, which ranks read and share out.

    Args:
        snapshot: The state. Groups of the row space are alike on all ranks, and only the rows of
            `own_ranges` are read. Those with "@r" and the number of this rank are its own. All
            others are those of rank 0.
        is_sharded: Whether each part has a file of its own.
        peers: The other ranks.
        run: Calls a function for each of some items, as `map` does.

    Raises:
        PartitionPlanError: If the plan is one for another number of rows.
    """

    def __init__(
        self, snapshot: Snapshot, *, is_sharded: bool, peers: Peers, run: Run = map
    ) -> None:
        self.snapshot = snapshot
        self._is_sharded = is_sharded
        self.peers = peers
        self._run = run
        self._layouts = snapshot.layouts()
        self._parts = self._placed(self._layouts)
        self._own = {key: one for key, one in self._parts.items() if self._is_own(one)}

    def own_ranges(self) -> Ranges:
        """Return the bytes of each tensor, by group and name, that this rank writes."""
        ranges: Ranges = {}
        for placed in self._own.values():
            for cut in placed.part.cuts:
                key = placed.group, cut.tensor.name
                ranges.setdefault(key, []).append((cut.byte_start, cut.byte_end))
        return ranges

    def content_sha256(self) -> None:
        """Return that nothing is known before it is written: no rank has all rows."""
        return

    def write(self, publisher: Publisher, folder: Path, *, sequence: int, created: str) -> Manifest:
        """Write all files but the manifest, together with the other ranks; called by rank 0."""
        written = self._take_part(publisher, folder)
        snapshot = self.snapshot
        parts = self._placed(written.layouts)
        receipts = {placed: written.receipts[key] for key, placed in parts.items()}
        digests = self._digests(publisher, folder, parts)
        groups = group_records(
            written.layouts, receipts, digests, plan=snapshot.plan, step=snapshot.step
        )
        tree = snapshot.tree
        if written.optimizers:
            tree = with_subtree(tree, KEPT, written.optimizers)
        files = {
            **file_records(groups),
            TREE: publisher.write_file(folder / TREE, tree),
            REPLAY: publisher.write_file(folder / REPLAY, snapshot.replay),
        }
        return manifest_of(
            snapshot,
            groups,
            files,
            sequence=sequence,
            created=created,
            finite=snapshot.is_sound and not written.has_nan,
            is_durable=publisher.is_durable,
        )

    def follow(self, publisher: Publisher) -> Message:
        """Write what rank 0 asks for, and return the message with which it ends that.

        Raises:
            OSError: If a rank cannot be reached.
        """
        while True:
            told = self.peers.swap({})[0]
            if "folder" not in told:
                return told
            folder = Path(told["folder"])
            replies = self.peers.swap(self._reply(publisher, folder, lambda: None))
            if not any("error" in reply for reply in replies):
                parts = self._placed(_all_layouts(self._layouts, replies, self.snapshot.step))
                self._digests(publisher, folder, parts)

    def _take_part(self, publisher: Publisher, folder: Path) -> _Written:
        own: list[Message] = []

        def announce() -> None:
            own.append(self.peers.swap({"folder": str(folder)})[0])

        reply = self._reply(publisher, folder, announce)
        if not own:  # this rank could not even make the files, and no other was asked
            raise _error_of(reply)
        replies = self.peers.swap(reply)
        for rank, one in enumerate(replies):
            if "error" in one:
                raise _error_of(one, rank)
        receipts = {
            key: Receipt(sha256, tuple((low, high) for low, high in lanes))
            for one in replies
            for key, (sha256, lanes) in one["parts"].items()
        }
        return _Written(
            receipts=receipts,
            layouts=_all_layouts(self._layouts, replies, self.snapshot.step),
            optimizers={
                str(rank): one["optimizers"]
                for rank, one in enumerate(replies)
                if rank and one["optimizers"] is not None
            },
            has_nan=any(one["has_nan"] for one in replies),
        )

    def _reply(
        self, publisher: Publisher, folder: Path, announce: Callable[[], None]
    ) -> dict[str, Any]:
        """Write this rank's parts, and return what is told of them, or why that failed."""
        try:
            receipts = self._write_own(publisher, folder, announce)
        except SyncFailed as err:
            return {"error": str(err.error), "errno": err.error.errno, "is_sync": True}
        except OSError as err:
            return {"error": str(err), "errno": err.errno, "is_sync": False}
        except (MemoryError, ValueError) as err:
            return {"error": repr(err), "errno": errno.EIO, "is_sync": False}
        kept = {name: layout for name, layout in self._layouts.items() if "@" in name}
        return {
            "parts": {key: [one.sha256, one.lanes] for key, one in receipts.items()},
            "layouts": {name: [vars(slot) for slot in one.slots] for name, one in kept.items()},
            "optimizers": subtree(self.snapshot.tree, OPTIMIZERS) if kept else None,
            "has_nan": any(self._run(self._has_nan, self._own.values())),
        }

    def _write_own(
        self, publisher: Publisher, folder: Path, announce: Callable[[], None]
    ) -> dict[str, Receipt]:
        is_first = self.peers.rank == 0
        # Files that several ranks write are made by rank 0, before it asks the others to.
        inside = [one for one in self._parts.values() if is_in_row_space(one.group)]
        shared = set() if self._is_sharded else {one.file for one in inside}
        own = {one.file for one in self._own.values()}
        paths = [folder / name for name in sorted(own | shared if is_first else own)]
        existing = () if is_first else {folder / name for name in shared}
        with publisher.open_files(paths, run=self._run, existing=existing) as opened:
            announce()
            descriptors = dict(zip(paths, opened, strict=True))
            write = partial(self._write, publisher, descriptors, folder)
            return dict(zip(self._own, self._run(write, self._own.values()), strict=True))

    def _write(
        self,
        publisher: Publisher,
        descriptors: Mapping[Path, int],
        folder: Path,
        placed: PlacedPart,
    ) -> Receipt:
        part, layout = placed.part, self._layouts[placed.group]
        tensors = {one.name: one for one in self.snapshot.groups[placed.group]}
        stop = part.offset + part.nbytes
        data = chunks(pieces(layout, tensors.values(), start=part.offset, stop=stop))
        sha256 = write_part(publisher.fs, descriptors[folder / placed.file], placed.offset, data)
        lanes = (lanes_of_cut(tensors[cut.tensor.name], cut) for cut in part.cuts)
        return Receipt(sha256, tuple(lanes))

    def _digests(
        self, publisher: Publisher, folder: Path, parts: Mapping[str, PlacedPart]
    ) -> dict[str, str]:
        """Return the digest of each image with several parts; each rank reads some of them."""
        files: dict[str, list[str]] = {}
        for placed in parts.values():
            files.setdefault(placed.group, []).append(placed.file)
        several = [name for name, own in files.items() if len(own) > 1]
        mine = several[self.peers.rank :: self.peers.world_size]
        reply: Message
        try:
            reply = {
                "digests": {
                    name: sha256_of_files(
                        publisher.fs, [folder / file for file in dict.fromkeys(files[name])]
                    )
                    for name in mine
                }
            }
        except OSError as err:
            reply = {"error": str(err), "errno": err.errno, "is_sync": False}
        replies = self.peers.swap(reply)
        failed = [(rank, one) for rank, one in enumerate(replies) if "error" in one]
        if failed and self.peers.rank == 0:
            raise _error_of(failed[0][1], failed[0][0])
        return dict(chain.from_iterable(one.get("digests", {}).items() for one in replies))

    def _placed(self, layouts: Mapping[str, Layout]) -> dict[str, PlacedPart]:
        """Return all parts by group and number, which is what ranks call them."""
        numbers: dict[str, int] = {}
        placed = {}
        for one in place_parts(layouts, self.snapshot.plan, is_sharded=self._is_sharded):
            number = numbers[one.group] = numbers.get(one.group, -1) + 1
            placed[f"{one.group}/{number}"] = one
        return placed

    def _is_own(self, placed: PlacedPart) -> bool:
        kept = OPTIMIZER.fullmatch(placed.group)
        if kept is not None and kept[2] is not None:
            return int(kept[2]) == self.peers.rank
        return (placed.part.partition or 0) % self.peers.world_size == self.peers.rank

    def _has_nan(self, placed: PlacedPart) -> bool:
        if placed.group != "model":
            return False
        data = {one.name: one.data for one in self.snapshot.groups["model"]}
        return any(
            has_nan(_rows(cut.tensor.dtype, data[cut.tensor.name][cut.byte_start : cut.byte_end]))
            for cut in placed.part.cuts
        )


def _rows(dtype: str, data: memoryview) -> HostTensor:
    return HostTensor(
        name="rows", dtype=dtype, shape=(data.nbytes // ITEM_BYTES[dtype],), data=data
    )


def _all_layouts(
    own: Mapping[str, Layout], replies: Sequence[Message], step: int
) -> dict[str, Layout]:
    layouts = dict(own)
    for reply in replies:
        for name, slots in reply["layouts"].items():
            described = [Slot(**{**slot, "shape": tuple(slot["shape"])}) for slot in slots]
            layouts[name] = layout_of(name, step, described)
    return layouts


def _error_of(reply: Message, rank: int = 0) -> Exception:
    """Return what rank 0 raises for the error of a rank."""
    error = OSError(reply["errno"] or errno.EIO, f"rank {rank}: {reply['error']}")
    return SyncFailed(error) if reply["is_sync"] else error
