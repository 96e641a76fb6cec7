"""Reads a manifest, and refuses one that contradicts itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from lightning_elche.partition.errors import (
    Corrupt,
    PartitionPlanError,
    PlanMismatch,
    UnsupportedFormat,
)
from lightning_elche.partition.fnv import partition_binding
from lightning_elche.partition.image import ITEM_BYTES, Layout, Slot, layout_of
from lightning_elche.partition.image_parts import ImagePart, cut_images
from lightning_elche.partition.manifest import (
    FORMAT,
    MANIFEST,
    REPLAY,
    TREE,
    FileRecord,
    GroupRecord,
    Manifest,
    PartRecord,
    TensorRecord,
    is_in_row_space,
    row_space_order,
    structure_sha256,
    value_of_groups,
)
from lightning_elche.partition.plan import (
    PartitionAssignment,
    PartitionId,
    PartitionMode,
    PartitionPlan,
    canonical_json,
)
from lightning_elche.partition.read_fields import (
    boolean,
    choice,
    count,
    hex_float,
    lanes,
    list_of,
    mapping_of,
    optional,
    record,
    scalar,
    sha256,
    text,
    word,
)
from lightning_elche.partition.rml import ALGORITHM, sum_lanes

__all__ = ["layouts_of", "parse_manifest"]

GROUP = r"[a-z][a-z0-9-]*(@r(0|[1-9][0-9]*))?"
FILE = rf"tree\.json|replay\.jsonl|{GROUP}\.(safetensors|part-[0-9]{{4,}})"

ASSIGNMENT = record({"id": count, "row_start": count, "row_end": count, "worker": optional(text)})
TENSOR = record(
    {
        "name": text,
        "dtype": choice(*ITEM_BYTES),
        "logical_dtype": optional(text),
        "shape": list_of(count),
        "offset": count,
        "bytes": count,
        "lanes": lanes,
        "alias_of": optional(text),
    }
)
PART = record(
    {
        "partition": optional(count),
        "row_start": count,
        "row_end": count,
        "file": text,
        "offset": count,
        "bytes": count,
        "sha256": sha256,
        "lanes": lanes,
        "binding": optional(word),
        "worker": optional(text),
    }
)
MANIFEST_FIELDS = record(
    {
        "format": choice(FORMAT),
        "step": count,
        "sync_index": count,
        "sequence": count,
        "segment": text,
        "run_id": text,
        "label": optional(text),
        "created": text,
        "parent": optional(text),
        "world": count,
        "finite": boolean,
        "durability": choice("fsync", "flush"),
        "env": mapping_of(scalar),
        "plan": record(
            {
                "mode": choice(*(mode.value for mode in PartitionMode)),
                "sha256": sha256,
                "assignments": list_of(ASSIGNMENT),
            }
        ),
        "structure_sha256": sha256,
        "groups": mapping_of(
            record(
                {
                    "bytes": count,
                    "sha256": sha256,
                    "files": list_of(text),
                    "replicated": boolean,
                    "tensors": list_of(TENSOR),
                    "parts": list_of(PART),
                }
            ),
            keys=GROUP,
        ),
        "files": mapping_of(record({"bytes": count, "sha256": sha256}), keys=FILE),
        "fingerprint": record({"algorithm": choice(ALGORITHM), "value": word, "lanes": lanes}),
        "metrics": mapping_of(hex_float),
        "dropped": list_of(text),
        "content_sha256": sha256,
        "digest": sha256,
    }
)


def parse_manifest(data: bytes, path: str) -> Manifest:
    """Return what the bytes of a manifest say.

    Args:
        data: The bytes.
        path: Of the checkpoint, for errors.

    Raises:
        UnsupportedFormat: If it is one of another format.
        Corrupt: If its digest is absent or wrong, or if it contradicts itself.
        PlanMismatch: If its parts are not those of its plan.
    """
    try:
        node = _checked_node(data, path)
        fields: dict[str, Any] = MANIFEST_FIELDS(node, "")
        manifest = _manifest(fields)
        layouts = layouts_of(manifest)
        _check_plan(manifest, fields["plan"]["sha256"], layouts, path)
        _check_sums(manifest, fields)
    except (ValueError, RecursionError) as err:
        if isinstance(err, PartitionPlanError):
            raise PlanMismatch(path, str(err)) from err
        raise Corrupt(path, str(err), file=MANIFEST) from err
    return manifest


def layouts_of(manifest: Manifest) -> dict[str, Layout]:
    """Return the layout of each group, and refuse other offsets and lengths than its own.

    Raises:
        ValueError: If a group is not laid out as this release does it.
    """
    layouts = {}
    for name, group in manifest.groups.items():
        slots = tuple(one.slot for one in group.tensors)
        layout = layout_of(name, manifest.step, slots)
        if layout.slots != slots or layout.nbytes != group.bytes:
            raise ValueError(f"/groups/{name} is not laid out as its tensors must be")
        layouts[name] = layout
    return layouts


def _checked_node(data: bytes, path: str) -> dict[str, object]:
    node = json.loads(data)
    if not isinstance(node, dict):
        raise ValueError("it must be an object")
    found = node.get("format")
    if isinstance(found, str) and found != FORMAT:
        raise UnsupportedFormat(path, found, FORMAT)
    try:
        is_canonical = canonical_json(node) == data
    except TypeError as err:  # a float
        raise ValueError(str(err)) from err
    if not is_canonical:
        raise ValueError("it is not in its canonical form")
    rest = {key: item for key, item in node.items() if key != "digest"}
    if "digest" not in node:
        raise ValueError("its digest is absent")
    if node["digest"] != hashlib.sha256(canonical_json(rest)).hexdigest():
        raise ValueError("its digest is not that of its content")
    return node


def _manifest(fields: Mapping[str, Any]) -> Manifest:
    derived = "format", "structure_sha256", "fingerprint", "content_sha256", "digest"
    plain = {key: item for key, item in fields.items() if key not in derived}
    fingerprint = fields["fingerprint"]
    return Manifest(
        **{
            **plain,
            "plan": _plan(fields["plan"]),
            "groups": {name: _group(item) for name, item in fields["groups"].items()},
            "files": {name: FileRecord(**item) for name, item in fields["files"].items()},
            "value": fingerprint["value"],
            "lanes": fingerprint["lanes"],
        }
    )


def _plan(fields: Mapping[str, Any]) -> PartitionPlan:
    assignments = (
        PartitionAssignment(PartitionId(a["id"]), a["row_start"], a["row_end"], a["worker"])
        for a in fields["assignments"]
    )
    return PartitionPlan(PartitionMode(fields["mode"]), tuple(assignments))


def _group(fields: Mapping[str, Any]) -> GroupRecord:
    parts = tuple(PartRecord(**part) for part in fields["parts"])
    tensors = tuple(_tensor(one) for one in fields["tensors"])
    return GroupRecord(**{**fields, "parts": parts, "tensors": tensors})


def _tensor(fields: Mapping[str, Any]) -> TensorRecord:
    own = {key: item for key, item in fields.items() if key not in ("bytes", "lanes")}
    slot = Slot(**own)
    if slot.nbytes != fields["bytes"]:
        raise ValueError(f"tensor {slot.name!r} has not the bytes of its shape")
    return TensorRecord(slot=slot, lanes=fields["lanes"])


def _check_plan(
    manifest: Manifest, plan_sha256: str, layouts: Mapping[str, Layout], path: str
) -> None:
    if manifest.plan.sha256 != plan_sha256:
        raise PlanMismatch(path, "its digest is not that of its assignments")
    for name, parts in cut_images(layouts, manifest.plan).items():
        group = manifest.groups[name]
        if len(parts) != len(group.parts):
            raise PlanMismatch(path, f"group {name} has {len(group.parts)} parts, not {len(parts)}")
        is_single = len(group.files) == 1 and group.files[0].endswith(".safetensors")
        for i, (part, told) in enumerate(zip(parts, group.parts, strict=True)):
            file = f"{name}.safetensors" if is_single else f"{name}.part-{i:04d}"
            offset = part.offset if is_single else 0
            own = part.partition, part.row_start, part.row_end, part.worker, part.nbytes
            if own != (told.partition, told.row_start, told.row_end, told.worker, told.bytes):
                raise PlanMismatch(path, f"part {i} of group {name} is not that of the plan")
            if (file, offset) != (told.file, told.offset):
                raise PlanMismatch(path, f"part {i} of group {name} is not in its place")
            _check_binding(manifest, part, told, path)


def _check_binding(manifest: Manifest, part: ImagePart, told: PartRecord, path: str) -> None:
    expected = None
    if part.partition is not None:
        place = PartitionAssignment(PartitionId(part.partition), part.row_start, part.row_end)
        expected = partition_binding(manifest.plan.sha256, place, manifest.step, told.lanes)
    if expected != told.binding:
        raise PlanMismatch(path, f"partition {told.partition} is bound to another plan or step")


def _check_sums(manifest: Manifest, fields: Mapping[str, Any]) -> None:
    for name, group in manifest.groups.items():
        _check_group(name, group, manifest.files)
    listed = {TREE, REPLAY, *(file for group in manifest.groups.values() for file in group.files)}
    if manifest.files.keys() != listed:
        raise ValueError("/files are not those of the groups, the tree and the replay")
    inside = {name: manifest.groups[name].stored for name in row_space_order(manifest.groups)}
    lanes_of_all = sum_lanes(one.lanes for tensors in inside.values() for one in tensors)
    slots = {name: [one.slot for one in group.tensors] for name, group in manifest.groups.items()}
    told = {
        "/fingerprint/lanes": (manifest.lanes, lanes_of_all),
        "/fingerprint/value": (manifest.value, value_of_groups(manifest.step, inside)),
        "/structure_sha256": (fields["structure_sha256"], structure_sha256(slots)),
        "/content_sha256": (fields["content_sha256"], manifest.content_sha256),
    }
    for at, (found, expected) in told.items():
        if found != expected:
            raise ValueError(f"{at} does not follow from the rest")


def _check_group(name: str, group: GroupRecord, files: Mapping[str, FileRecord]) -> None:
    is_single = len(group.files) == 1 and group.files[0].endswith(".safetensors")
    expected = [f"{name}.safetensors"] if is_single else [part.file for part in group.parts]
    if list(group.files) != expected:
        raise ValueError(f"/groups/{name}/files must be {expected}, got {list(group.files)}")
    if is_single and files.get(expected[0]) != FileRecord(bytes=group.bytes, sha256=group.sha256):
        raise ValueError(f"/groups/{name} is not the file {expected[0]}")
    if not is_single:
        for part in group.parts:
            if files.get(part.file) != FileRecord(bytes=part.bytes, sha256=part.sha256):
                raise ValueError(f"/groups/{name} has a part that is not the file {part.file}")
    of_parts = sum_lanes(part.lanes for part in group.parts)
    if of_parts != sum_lanes(one.lanes for one in group.stored):
        raise ValueError(f"/groups/{name} has parts whose lanes are not those of its tensors")
    if group.replicated != is_in_row_space(name):
        raise ValueError(f"/groups/{name}/replicated must be {is_in_row_space(name)}".lower())
