"""What a checkpoint says of itself."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft7Validator

from lightning_elche.partition.errors import CheckpointError
from lightning_elche.partition.fs import LocalFs
from lightning_elche.partition.image import HostTensor
from lightning_elche.partition.manifest import (
    encode_manifest,
    is_in_row_space,
    optimizer_state_sha,
    row_space_order,
)
from lightning_elche.partition.plan import PartitionPlan
from lightning_elche.partition.read_checkpoint import read_manifest
from lightning_elche.partition.read_manifest import MANIFEST_FIELDS, parse_manifest
from lightning_elche.partition.store_snapshot import Snapshot
from tests.partition.manifests import sealed
from tests.partition.states import make_snapshot, make_store, make_tensor


def full_snapshot(**options: Any) -> Snapshot:
    """A state that uses every field."""
    groups = {
        "model": [make_tensor("w", 0.5, size=20_000), HostTensor.of("c", np.array([1j]))],
        "optimizer-0": [make_tensor("w.exp_avg", 0.25, size=20_000)],
        "optimizer-1@r1": [make_tensor("w.exp_avg", 0.125)],
        "aux": [HostTensor.of("/rng", np.arange(4, dtype=np.uint8))],
    }
    groups["model"].append(HostTensor.of("tied", groups["model"][0].array(), alias_of="w"))
    fields = {
        "plan": PartitionPlan.row_ranges(5, 2).with_workers(["a", "b"]),
        "sync_index": 3,
        "replay": b"{}\n",
        "label": "best-1",
        "parent": "step-00000041",
        "world": 2,
        "env": {"torch": "2.13", "cuda": None, "deterministic": True, "threads": 2},
        "metrics": {"loss": 0.1, "bad": math.nan, "top": math.inf},
        "dropped": ("/hyper_parameters/act",),
    }
    return make_snapshot(42, **{"groups": groups, **fields, **options})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A manifest that uses every field."""
    saved = make_store(tmp_path_factory.mktemp("root")).save(full_snapshot())
    return (saved.path / "manifest.json").read_bytes()


def test_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    """All fields come back, and make the same bytes."""
    saved = make_store(tmp_path).save(full_snapshot())
    read = read_manifest(LocalFs(), saved.path)
    assert encode_manifest(read) == encode_manifest(saved.manifest)
    assert (read.groups, read.plan, read.env) == (
        saved.manifest.groups,
        saved.manifest.plan,
        saved.manifest.env,
    )


def test_digest_is_that_of_the_rest(data: bytes) -> None:
    """The digest is the SHA-256 of the canonical JSON without itself."""
    node = json.loads(data)
    digest = node.pop("digest")
    rest = json.dumps(node, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(rest.encode()).hexdigest() == digest


def test_parts_tile_the_row_space(data: bytes) -> None:
    """Partitions go on from group to group, the header is in the first part of each."""
    groups = json.loads(data)["groups"]
    told = {
        name: [(p["partition"], p["row_start"], p["row_end"], p["offset"]) for p in group["parts"]]
        for name, group in groups.items()
    }
    assert told == {
        "model": [(0, 0, 3, 0)],
        "optimizer-0": [(1, 3, 5, 0)],
        "optimizer-1@r1": [(None, 0, 1, 0)],
        "aux": [(None, 0, 1, 0)],
    }


def test_fingerprint_does_not_depend_on_plan_or_layout(tmp_path: Path) -> None:
    """Any number of partitions and files gives the same value and the same content."""
    told = set()
    for i, plan in enumerate([PartitionPlan(), *(PartitionPlan.row_ranges(5, n) for n in (1, 4))]):
        for layout in ("single", "sharded"):
            store = make_store(tmp_path / f"{i}{layout}", layout=layout)
            manifest = store.save(full_snapshot(plan=plan)).manifest
            told.add((manifest.value, manifest.lanes, manifest.content_sha256))
    assert len(told) == 1


@pytest.mark.parametrize(
    ("change", "is_other"),
    [
        ({"label": None, "metrics": {}, "world": 9, "env": {}, "replay": b""}, False),
        ({"sync_index": 4}, True),
        ({"tree": b"{}"}, True),
        ({"groups": {"model": [make_tensor("w", 1.0)]}, "plan": PartitionPlan()}, True),
    ],
)
def test_content_is_what_a_resumed_run_depends_on(
    tmp_path: Path, data: bytes, change: dict[str, Any], is_other: bool
) -> None:
    """Times, labels and metrics do not enter the digest of the content; the state does."""
    manifest = make_store(tmp_path).save(full_snapshot(**change)).manifest
    assert (manifest.content_sha256 != json.loads(data)["content_sha256"]) is is_other


def test_optimizer_digest_is_that_of_its_file(tmp_path: Path) -> None:
    """With one optimizer it is what `sha256sum` prints; with several one of all digests."""
    saved = make_store(tmp_path).save(full_snapshot())
    digests = [
        hashlib.sha256((saved.path / f"{name}.safetensors").read_bytes()).hexdigest()
        for name in ("optimizer-0", "optimizer-1@r1")
    ]
    groups = dict(saved.manifest.groups)
    assert optimizer_state_sha(groups) == hashlib.sha256("\n".join(digests).encode()).hexdigest()
    del groups["optimizer-1@r1"]
    assert optimizer_state_sha(groups) == digests[0]
    del groups["optimizer-0"]
    assert optimizer_state_sha(groups) is None


def test_row_space_is_the_model_and_what_is_alike_on_all_ranks() -> None:
    """Optimizers follow the model by number; what differs by rank and the rest are outside."""
    groups = ["aux", "optimizer-10", "optimizer-2", "optimizer-0@r1", "feedback", "model"]
    assert row_space_order(groups) == ["model", "optimizer-2", "optimizer-10"]
    assert not is_in_row_space("optimizer-0@r1")


Change = Callable[[dict[str, Any]], object]

# What the hand-written check and the schema both refuse.
MALFORMED: dict[str, Change] = {
    "missing": lambda m: m.pop("world"),
    "unknown": lambda m: m.update(extra=1),
    "negative": lambda m: m.update(step=-1),
    "bool as count": lambda m: m.update(step=True),
    "text as count": lambda m: m.update(sequence="1"),
    "huge": lambda m: m.update(sync_index=2**63),
    "null text": lambda m: m.update(run_id=None),
    "number as label": lambda m: m.update(label=1),
    "finite": lambda m: m.update(finite=1),
    "durability": lambda m: m.update(durability="none"),
    "env": lambda m: m["env"].update(torch=[]),
    "plan": lambda m: m["plan"].update(mode="balanced"),
    "assignment": lambda m: m["plan"]["assignments"][0].pop("id"),
    "short digest": lambda m: m.update(structure_sha256="ab"),
    "upper-case digest": lambda m: m.update(content_sha256="A" * 64),
    "digest with line end": lambda m: m.update(content_sha256="a" * 64 + "\n"),
    "group name": lambda m: m["groups"].update({"Model": m["groups"]["model"]}),
    "group rank": lambda m: m["groups"].update({"model@r01": m["groups"]["model"]}),
    "replicated": lambda m: m["groups"]["model"].update(replicated="yes"),
    "tensor": lambda m: m["groups"]["model"]["tensors"][0].pop("alias_of"),
    "dtype": lambda m: m["groups"]["model"]["tensors"][0].update(dtype="F4"),
    "shape": lambda m: m["groups"]["model"]["tensors"][0].update(shape=[-1]),
    "lanes": lambda m: m["groups"]["model"]["tensors"][0].update(lanes=["0x0"]),
    "three lanes": lambda m: m["fingerprint"].update(lanes=["0x" + "0" * 16] * 3),
    "part": lambda m: m["groups"]["model"]["parts"][0].update(partition="0"),
    "binding": lambda m: m["groups"]["model"]["parts"][0].update(binding=5),
    "file name": lambda m: m["files"].update({"../x": m["files"]["tree.json"]}),
    "file": lambda m: m["files"]["tree.json"].pop("bytes"),
    "algorithm": lambda m: m["fingerprint"].update(algorithm="xor"),
    "metric": lambda m: m["metrics"].update(loss="0.1"),
    "dropped": lambda m: m.update(dropped={}),
}

# What only the check by hand refuses, since it is about how fields belong together.
CONTRADICTIONS: dict[str, Change] = {
    "metric beyond floats": lambda m: m["metrics"].update(loss="0x1.8p+9999"),
    "plan digest": lambda m: m["plan"].update(sha256="0" * 64),
    "worker": lambda m: m["plan"]["assignments"][0].update(worker="b"),
    "rows": lambda m: m["plan"]["assignments"][1].update(row_end=6),
    "content": lambda m: m.update(content_sha256="0" * 64),
    "structure": lambda m: m.update(structure_sha256="0" * 64),
    "value": lambda m: m["fingerprint"].update(value="0x" + "0" * 16),
    "lanes": lambda m: m["fingerprint"].update(lanes=["0x" + "0" * 16] * 2),
    "step": lambda m: m.update(step=43),
    "offset": lambda m: m["groups"]["model"]["tensors"][0].update(offset=64),
    "bytes": lambda m: m["groups"]["model"]["tensors"][0].update(bytes=1),
    "order": lambda m: m["groups"]["model"]["tensors"].reverse(),
    "alias": lambda m: m["groups"]["model"]["tensors"][2].update(alias_of="x"),
    "group bytes": lambda m: m["groups"]["model"].update(bytes=1),
    "group digest": lambda m: m["groups"]["model"].update(sha256="0" * 64),
    "group files": lambda m: m["groups"]["model"].update(files=["aux.safetensors"]),
    "replicated": lambda m: m["groups"]["aux"].update(replicated=True),
    "no parts": lambda m: m["groups"]["model"].update(parts=[]),
    "part rows": lambda m: m["groups"]["model"]["parts"][0].update(row_end=2),
    "part file": lambda m: m["groups"]["model"]["parts"][0].update(file="aux.safetensors"),
    "part offset": lambda m: m["groups"]["model"]["parts"][0].update(offset=1),
    "part lanes": lambda m: m["groups"]["aux"]["parts"][0].update(lanes=["0x" + "0" * 16] * 2),
    "binding": lambda m: m["groups"]["model"]["parts"][0].update(binding="0x" + "0" * 16),
    "unbound": lambda m: m["groups"]["model"]["parts"][0].update(binding=None),
    "unlisted group": lambda m: m["groups"].pop("aux"),
    "unlisted file": lambda m: m["files"].pop("replay.jsonl"),
}


def validator() -> Draft7Validator:
    folder = resources.files("lightning_elche") / "contracts" / "schemas"
    schema = json.loads((folder / "checkpoint-manifest-v1.schema.json").read_text())
    Draft7Validator.check_schema(schema)
    return Draft7Validator(schema)


def test_schema_and_check_by_hand_agree(data: bytes) -> None:
    """What is malformed is refused by both, and a good manifest by neither."""
    schema, good = validator(), json.loads(data)
    assert schema.is_valid(good)
    assert MANIFEST_FIELDS(good, "")["step"] == 42
    for name, change in MALFORMED.items():
        bad = copy.deepcopy(good)
        change(bad)
        assert not schema.is_valid(bad), name
        with pytest.raises(ValueError, match=r"^/"):
            MANIFEST_FIELDS(bad, "")


@pytest.mark.parametrize("change", [*MALFORMED.values(), *CONTRADICTIONS.values()])
def test_manifest_that_was_forged_is_refused(data: bytes, change: Change) -> None:
    """A manifest whose digest is right is read only if all of it fits together."""
    node = json.loads(data)
    change(node)
    with pytest.raises(CheckpointError):
        parse_manifest(sealed(node), "step-00000042")


@pytest.mark.parametrize(
    "forged",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        b'{"digest":1e5}',
        b'{"format":"elche-checkpoint-1"}',
    ],
)
def test_file_that_is_no_manifest_is_refused(forged: bytes) -> None:
    """Anything may lie there in place of a manifest."""
    with pytest.raises(CheckpointError):
        parse_manifest(forged, "step-00000042")


def test_manifest_in_another_form_is_refused(data: bytes) -> None:
    """The same content with a space more is not what was written."""
    with pytest.raises(CheckpointError, match="not in its canonical form"):
        parse_manifest(data.replace(b'"world":2', b'"world": 2'), "step-00000042")
