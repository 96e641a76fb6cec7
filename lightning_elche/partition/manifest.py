"""What a checkpoint says of itself: each file, tensor and part, with its digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lightning_elche.contracts.runfolder.checkpoint_format import (
    FORMAT,
    MANIFEST,
    OPTIMIZER,
    TREE,
    optimizer_digest,
)
from lightning_elche.partition.fnv import Lanes, state_value
from lightning_elche.partition.image import Slot
from lightning_elche.partition.plan import PartitionPlan, canonical_json
from lightning_elche.partition.rml import ALGORITHM, num_rows
from lightning_elche.partition.store_names import checkpoint_name

__all__ = [
    "FORMAT",
    "MANIFEST",
    "REPLAY",
    "TREE",
    "FileRecord",
    "GroupRecord",
    "Manifest",
    "PartRecord",
    "TensorRecord",
    "content_sha256",
    "encode_manifest",
    "is_in_row_space",
    "optimizer_state_sha",
    "row_space_order",
    "structure_sha256",
    "value_of_groups",
]

REPLAY = "replay.jsonl"


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """A file: its length and digest."""

    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class TensorRecord:
    """A tensor: its place in the file of its group, and its lanes."""

    slot: Slot
    lanes: Lanes


@dataclass(frozen=True, kw_only=True)
class PartRecord:
    """The bytes of a group that one partition has written.

    Attributes:
        partition: Number of the partition, `None` of a group outside the row space.
        row_start: First row: in the row space, or else in the group.
        row_end: The row behind the last one.
        file: Where the bytes are.
        offset: Of the first one in that file.
        bytes: Their number. The first part of a group has the header, too.
        sha256: Their digest.
        lanes: Of the rows.
        binding: Ties the rows to plan, partition and step; `None` outside the row space.
        worker: Label of the worker that wrote it.
    """

    partition: int | None
    row_start: int
    row_end: int
    file: str
    offset: int
    bytes: int
    sha256: str
    lanes: Lanes
    binding: int | None
    worker: str | None


@dataclass(frozen=True, kw_only=True)
class GroupRecord:
    """A group of tensors.

    Attributes:
        bytes: Length of its image, which is that of all its files in turn.
        sha256: Digest of the image.
        files: Their names, one unless the layout is sharded.
        replicated: Whether it is the same on all ranks.
        tensors: In the order of the file, then aliases.
        parts: In the order of the file.
    """

    bytes: int
    sha256: str
    files: tuple[str, ...]
    replicated: bool
    tensors: tuple[TensorRecord, ...]
    parts: tuple[PartRecord, ...]

    @property
    def stored(self) -> tuple[TensorRecord, ...]:
        """The tensors that have bytes of their own."""
        return tuple(one for one in self.tensors if one.slot.alias_of is None)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All of it but the digest, which follows from the rest.

    Attributes:
        step: Of the state.
        sync_index: Number of averaging events so far.
        sequence: Rises with each checkpoint of a root; the newest one has the highest.
        segment: The stretch of the run between two resumptions.
        run_id: Of the run.
        label: A labelled checkpoint is never evicted.
        created: Time in UTC, ISO 8601.
        parent: Name of the checkpoint before it, if there is one.
        world: Number of ranks.
        finite: Whether it may be resumed from: no NaN in the model, and no objection.
        durability: "fsync" if it survives a power cut, "flush" if it may not.
        env: Versions and devices.
        plan: How rows were assigned to partitions.
        groups: By name.
        files: Every file but the manifest, by name.
        value: Fingerprint of the row space.
        lanes: Sum of those of the row space.
        metrics: Last logged values.
        dropped: JSON pointers of hyperparameters that could not be stored.
    """

    step: int
    sync_index: int
    sequence: int
    segment: str
    run_id: str
    label: str | None
    created: str
    parent: str | None
    world: int
    finite: bool
    durability: str
    env: Mapping[str, str | int | bool | None]
    plan: PartitionPlan
    groups: Mapping[str, GroupRecord]
    files: Mapping[str, FileRecord]
    value: int
    lanes: Lanes
    metrics: Mapping[str, float] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of its folder."""
        return checkpoint_name(self.step, self.label)

    @property
    def content_sha256(self) -> str:
        """Digest of what a resumed run depends on; not of times, names and layout."""
        return content_sha256(
            self.step,
            self.sync_index,
            {name: group.sha256 for name, group in self.groups.items()},
            self.files[TREE].sha256,
        )


def content_sha256(step: int, sync_index: int, groups: Mapping[str, str], tree_sha256: str) -> str:
    """Return the digest that two writers of one state agree on.

    Args:
        step: Of the state.
        sync_index: Number of averaging events so far.
        groups: Digest of the image of each group.
        tree_sha256: Digest of the tree.
    """
    parts = {"groups": dict(groups), "step": step, "sync_index": sync_index, "tree": tree_sha256}
    return hashlib.sha256(canonical_json(parts)).hexdigest()


def structure_sha256(groups: Mapping[str, Iterable[Slot]]) -> str:
    """Return the digest of names, types and shapes of all tensors, whatever their values."""
    structure = {
        name: [
            [slot.name, slot.dtype, slot.logical_dtype, list(slot.shape), slot.alias_of]
            for slot in slots
        ]
        for name, slots in groups.items()
    }
    return hashlib.sha256(canonical_json(structure)).hexdigest()


def is_in_row_space(group: str) -> bool:
    """Return whether the rows of a group are shared among partitions: it is alike on all ranks."""
    return group == "model" or (OPTIMIZER.fullmatch(group) is not None and "@" not in group)


def row_space_order(groups: Iterable[str]) -> list[str]:
    """Return the groups of the row space in its order: the model, then optimizers by number."""
    inside = [name for name in groups if is_in_row_space(name)]
    return sorted(inside, key=lambda name: (name != "model", len(name), name))


def value_of_groups(step: int, groups: Mapping[str, Sequence[TensorRecord]]) -> int:
    """Return the fingerprint of the row space."""
    tensors = [
        (f"{name}/{one.slot.name}", num_rows(one.slot.nbytes), one.lanes)
        for name in row_space_order(groups)
        for one in groups[name]
        if one.slot.alias_of is None
    ]
    return state_value(step, tensors)


def optimizer_state_sha(groups: Mapping[str, GroupRecord]) -> str | None:
    """As `optimizer_digest`, of the groups' records."""
    return optimizer_digest({name: group.sha256 for name, group in groups.items()})


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the file."""
    node = _node(manifest)
    node["digest"] = hashlib.sha256(canonical_json(node)).hexdigest()
    return canonical_json(node)


def _node(manifest: Manifest) -> dict[str, object]:
    plain = "step", "sync_index", "sequence", "segment", "run_id", "label", "created", "parent"
    slots = {name: [one.slot for one in group.tensors] for name, group in manifest.groups.items()}
    return {
        **{name: getattr(manifest, name) for name in (*plain, "world", "finite", "durability")},
        "format": FORMAT,
        "env": dict(manifest.env),
        "plan": _plan_node(manifest.plan),
        "structure_sha256": structure_sha256(slots),
        "groups": {name: _group_node(group) for name, group in manifest.groups.items()},
        "files": {name: vars(record) for name, record in manifest.files.items()},
        "fingerprint": {
            "algorithm": ALGORITHM,
            "value": _word(manifest.value),
            "lanes": _words(manifest.lanes),
        },
        "metrics": {name: float(value).hex() for name, value in manifest.metrics.items()},
        "dropped": list(manifest.dropped),
        "content_sha256": manifest.content_sha256,
    }


def _plan_node(plan: PartitionPlan) -> dict[str, object]:
    assignments = [
        {"id": a.partition_id.value, "row_end": a.row_end, "row_start": a.row_start}
        | {"worker": a.worker}
        for a in plan.assignments
    ]
    return {"mode": plan.mode.value, "sha256": plan.sha256, "assignments": assignments}


def _group_node(group: GroupRecord) -> dict[str, object]:
    return {
        **vars(group),
        "files": list(group.files),
        "tensors": [_tensor_node(one) for one in group.tensors],
        "parts": [_part_node(part) for part in group.parts],
    }


def _tensor_node(one: TensorRecord) -> dict[str, object]:
    slot = one.slot
    size = {"shape": list(slot.shape), "bytes": slot.nbytes}
    return {**vars(slot), **size, "lanes": _words(one.lanes)}


def _part_node(part: PartRecord) -> dict[str, object]:
    binding = None if part.binding is None else _word(part.binding)
    return {**vars(part), "lanes": _words(part.lanes), "binding": binding}


def _word(value: int) -> str:
    return f"0x{value:016x}"


def _words(lanes: Lanes) -> list[str]:
    return [_word(lane) for lane in lanes]
