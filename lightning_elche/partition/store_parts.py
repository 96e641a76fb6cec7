"""Writes the parts of images, wherever they are in memory, and puts their records together."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lightning_elche.partition.fnv import Lanes, partition_binding
from lightning_elche.partition.fs import Fs
from lightning_elche.partition.image import Layout
from lightning_elche.partition.image_parts import ImagePart, cut_images
from lightning_elche.partition.manifest import (
    FileRecord,
    GroupRecord,
    PartRecord,
    TensorRecord,
    is_in_row_space,
)
from lightning_elche.partition.plan import PartitionAssignment, PartitionId, PartitionPlan
from lightning_elche.partition.publish import CHUNK_BYTES, write_all
from lightning_elche.partition.rml import sum_lanes

__all__ = [
    "PlacedPart",
    "Receipt",
    "file_records",
    "group_records",
    "place_parts",
    "sha256_of_files",
    "write_part",
]


@dataclass(frozen=True, eq=False)  # each is a key of its own
class PlacedPart:
    """A part of the image of a group, and where it is written.

    Attributes:
        group: The group.
        part: Which of its bytes, and whose.
        file: The file.
        offset: Of its first byte in that file.
    """

    group: str
    part: ImagePart
    file: str
    offset: int


@dataclass(frozen=True)
class Receipt:
    """What is known of a part once it is written.

    Attributes:
        sha256: Digest of its bytes.
        lanes: Of each of its cuts.
    """

    sha256: str
    lanes: tuple[Lanes, ...]


def place_parts(
    layouts: Mapping[str, Layout], plan: PartitionPlan, *, is_sharded: bool
) -> list[PlacedPart]:
    """Return the parts of all images in their order, the same for every writer.

    Args:
        layouts: Of all groups.
        plan: Assigns the rows of the row space.
        is_sharded: Whether each part has a file of its own.

    Raises:
        PartitionPlanError: If the plan is one for another number of rows.
    """
    placed = []
    for name, parts in cut_images(layouts, plan).items():
        for i, part in enumerate(parts):
            file = f"{name}.part-{i:04d}" if is_sharded else f"{name}.safetensors"
            placed.append(PlacedPart(name, part, file, 0 if is_sharded else part.offset))
    return placed


def write_part(
    fs: Fs,
    descriptor: int,
    offset: int,
    chunks: Iterable[memoryview],
) -> str:
    """Write bytes from `offset` on, and return their SHA-256."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
        write_all(fs, descriptor, chunk, offset)
        offset += chunk.nbytes
    return digest.hexdigest()


def sha256_of_files(fs: Fs, paths: Iterable[Path]) -> str:
    """Return the SHA-256 of an image that several processes have written, file after file."""
    digest = hashlib.sha256()
    block = np.empty(CHUNK_BYTES, dtype=np.uint8).data
    for path in paths:
        descriptor = fs.open_read(path)
        try:
            offset = 0
            while count := fs.pread_into(descriptor, block, offset):
                digest.update(block[:count])
                offset += count
        finally:
            fs.close(descriptor)
    return digest.hexdigest()


def group_records(
    layouts: Mapping[str, Layout],
    receipts: Mapping[PlacedPart, Receipt],
    digests: Mapping[str, str],
    *,
    plan: PartitionPlan,
    step: int,
) -> dict[str, GroupRecord]:
    """Return what a manifest says of all groups.

    Args:
        layouts: Of all groups.
        receipts: Of all parts, in their order.
        digests: SHA-256 of each image that has more than one part.
        plan: Assigns the rows of the row space.
        step: Of the state.
    """
    plan_sha256 = plan.sha256
    groups = {}
    for name, layout in layouts.items():
        own = [(placed, receipt) for placed, receipt in receipts.items() if placed.group == name]
        parts = tuple(_part_record(*one, plan_sha256, step) for one in own)
        groups[name] = GroupRecord(
            bytes=layout.nbytes,
            sha256=digests.get(name, parts[0].sha256),
            files=tuple(dict.fromkeys(part.file for part in parts)),
            replicated=is_in_row_space(name),
            tensors=_tensor_records(layout, own),
            parts=parts,
        )
    return groups


def file_records(groups: Mapping[str, GroupRecord]) -> dict[str, FileRecord]:
    """Return the files that the images of groups are made of."""
    files = {}
    for group in groups.values():
        is_single = len(group.files) == 1
        for part in group.parts:
            size, sha256 = (group.bytes, group.sha256) if is_single else (part.bytes, part.sha256)
            files[part.file] = FileRecord(bytes=size, sha256=sha256)
    return files


def _tensor_records(
    layout: Layout, written: Sequence[tuple[PlacedPart, Receipt]]
) -> tuple[TensorRecord, ...]:
    lanes: dict[str, Lanes] = {}
    for placed, receipt in written:
        for cut, own in zip(placed.part.cuts, receipt.lanes, strict=True):
            lanes[cut.tensor.name] = sum_lanes([lanes.get(cut.tensor.name, (0, 0)), own])
    return tuple(
        TensorRecord(slot=slot, lanes=lanes[slot.alias_of or slot.name]) for slot in layout.slots
    )


def _part_record(placed: PlacedPart, receipt: Receipt, plan_sha256: str, step: int) -> PartRecord:
    part, binding = placed.part, None
    lanes = sum_lanes(receipt.lanes)
    if part.partition is not None:
        rows = PartitionAssignment(PartitionId(part.partition), part.row_start, part.row_end)
        binding = partition_binding(plan_sha256, rows, step, lanes)
    return PartRecord(
        partition=part.partition,
        row_start=part.row_start,
        row_end=part.row_end,
        file=placed.file,
        offset=placed.offset,
        bytes=part.nbytes,
        sha256=receipt.sha256,
        lanes=lanes,
        binding=binding,
        worker=part.worker,
    )
