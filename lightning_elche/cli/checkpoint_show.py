"""`elche checkpoint show`: what is in a checkpoint."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

from lightning_elche.cli.checkpoint_places import checkpoint_at
from lightning_elche.cli.outcome import Line, Outcome, table
from lightning_elche.partition.errors import Corrupt
from lightning_elche.partition.fs import LocalFs
from lightning_elche.partition.manifest import TREE, Manifest, TensorRecord, optimizer_state_sha
from lightning_elche.partition.read_checkpoint import read_checkpoint, read_manifest
from lightning_elche.partition.rml import ALGORITHM
from lightning_elche.partition.tree import read_nodes

__all__ = ["show"]

DURABILITY = {
    "fsync": "fsync: survives a power cut",
    "flush": "flush: survives the end of the process, not a power cut",
}


def show(options: argparse.Namespace) -> Outcome:
    """Return what the manifest says, and on request each tensor and the tree.

    Raises:
        CheckpointError: If the manifest is not right.
        OSError: If the folder cannot be read.
    """
    fs = LocalFs()
    path = checkpoint_at(fs, options.path, options)
    manifest = read_manifest(fs, path)
    data = {"path": str(path), **_facts(manifest)}
    lines = _summary(manifest)
    if options.tensors:
        tensors = list(_tensors(manifest))
        data["tensors"] = tensors
        heads = "TENSOR", "DTYPE", "SHAPE", "BYTES", "LANES"
        lines += ["", *table([heads, *map(_row, tensors)])]
    if options.tree:
        tree = read_checkpoint(fs, path, groups=()).tree
        try:
            data["tree"] = read_nodes(tree)
        except ValueError as err:
            raise Corrupt(str(path), str(err), file=TREE) from err
        lines += ["", *json.dumps(data["tree"], indent=2).splitlines()]
    return Outcome(lines=tuple(map(Line, lines)), data=data)


def _facts(manifest: Manifest) -> dict[str, object]:
    plain = "step", "sync_index", "sequence", "label", "segment", "run_id", "created", "parent"
    more = "world", "finite", "durability", "env", "metrics", "dropped"
    plan = manifest.plan
    return {
        **{name: getattr(manifest, name) for name in (*plain, *more)},
        "plan": {
            "mode": plan.mode.value,
            "partitions": plan.partition_count,
            "sha256": plan.sha256,
        },
        "groups": {
            name: {
                "tensors": len(group.tensors),
                "bytes": group.bytes,
                "sha256": group.sha256,
                "files": group.files,
                "parts": len(group.parts),
                "replicated": group.replicated,
            }
            for name, group in manifest.groups.items()
        },
        "files": {name: vars(file) for name, file in manifest.files.items()},
        "fingerprint": {
            "algorithm": ALGORITHM,
            "value": f"{manifest.value:#018x}",
            "lanes": _hex(manifest.lanes),
        },
        "content_sha256": manifest.content_sha256,
        "optimizer_state_sha": optimizer_state_sha(manifest.groups),
    }


def _summary(manifest: Manifest) -> list[str]:
    pairs = {
        "checkpoint": manifest.name,
        "created": f"{manifest.created}, number {manifest.sequence} of its root",
        "run": f"{manifest.run_id}, segment {manifest.segment}",
        "parent": manifest.parent or "none",
        "world": f"{manifest.world}, {manifest.sync_index} averaging events",
        "resumable": "yes" if manifest.finite else "no: NaN in the model, or an objection",
        "durability": DURABILITY[manifest.durability],
        "plan": f"{manifest.plan.mode.value}, partitions: {manifest.plan.partition_count}",
        "fingerprint": f"{manifest.value:#018x} ({ALGORITHM})",
        "content": manifest.content_sha256,
        "optimizers": optimizer_state_sha(manifest.groups) or "none",
    }
    rows = [*pairs.items(), *_group_rows(manifest)]
    rows += [(f"metric {name}", repr(value)) for name, value in manifest.metrics.items()]
    rows += [(f"env {name}", str(value)) for name, value in manifest.env.items()]
    rows += [("dropped", pointer) for pointer in manifest.dropped]
    return table(rows)


def _group_rows(manifest: Manifest) -> Iterator[tuple[str, str]]:
    for name, group in manifest.groups.items():
        counts = f"tensors: {len(group.tensors)}, files: {len(group.files)}"
        yield f"group {name}", f"{group.bytes} bytes, {counts}"


def _tensors(manifest: Manifest) -> Iterator[dict[str, object]]:
    for name, group in manifest.groups.items():
        for one in group.tensors:
            yield _tensor(name, one)


def _tensor(group: str, one: TensorRecord) -> dict[str, object]:
    slot = one.slot
    return {
        "name": f"{group}/{slot.name}",
        "dtype": slot.dtype,
        "logical_dtype": slot.logical_dtype,
        "shape": list(slot.shape),
        "bytes": slot.nbytes,
        "offset": slot.offset,
        "lanes": _hex(one.lanes),
        "alias_of": slot.alias_of,
    }


def _row(tensor: dict[str, object]) -> tuple[str, ...]:
    dtype = tensor["logical_dtype"] or tensor["dtype"]
    alias = tensor["alias_of"]
    lanes = tensor["lanes"]
    assert isinstance(lanes, list)
    last = " ".join(lanes) if alias is None else f"shares the bytes of {alias}"
    return str(tensor["name"]), str(dtype), str(tensor["shape"]), str(tensor["bytes"]), last


def _hex(lanes: tuple[int, int]) -> list[str]:
    return [f"{lane:#018x}" for lane in lanes]
