"""Checkpoints in folders as evidence, whoever has written them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest

from lightning_elche.contracts.checking.check import check_run
from lightning_elche.contracts.runfolder.partitioned import CheckpointFault, read_partitioned
from lightning_elche.contracts.runfolder.pointer import read_pointer, write_pointer
from lightning_elche.contracts.verdicts import GateResult
from lightning_elche.partition.image import HostTensor
from lightning_elche.partition.manifest import Manifest, optimizer_state_sha
from lightning_elche.partition.plan import PartitionPlan, canonical_json
from tests.contracts.runs import edit, train_healthily
from tests.partition.states import make_snapshot, make_store

FOLDER = PurePosixPath("partition/step-00000002-epoch-0")


def tensors(name: str, size: int) -> list[HostTensor]:
    return [HostTensor.of(name, np.arange(size, dtype=np.float32))]


def save(run_dir: Path, **options: Any) -> Manifest:
    """Save a checkpoint of two optimizers."""
    groups = {
        "model": tensors("w", 40_000),
        "optimizer-0": tensors("m", 3),
        "optimizer-1": tensors("m", 20_000),
    }
    snapshot = make_snapshot(2, groups=groups, label="epoch-0", **options)
    return make_store(run_dir / "partition").save(snapshot).manifest


@pytest.mark.parametrize("num_hosts", [1, 2])
def test_digests_are_those_of_the_manifest(tmp_path: Path, num_hosts: int) -> None:
    """Also where a group has several files, and whoever has written it counts otherwise."""
    plan = PartitionPlan.row_ranges(6, 3)
    manifest = save(tmp_path, plan=plan, num_hosts=num_hosts)
    found = read_partitioned(tmp_path, FOLDER)
    assert found.optimizer_state_sha == optimizer_state_sha(manifest.groups)
    assert (found.content_sha256, found.label) == (manifest.content_sha256, "epoch-0")
    assert found.bytes == sum(file.bytes for file in manifest.files.values())


def forge(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a manifest, and give it the digest that it has then."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["digest"]
    change(manifest)
    manifest["digest"] = hashlib.sha256(canonical_json(manifest)).hexdigest()
    path.write_bytes(canonical_json(manifest))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: (path / "extra").touch(), "extra: is no file of this checkpoint"),
        (lambda path: (path / "tree.json").unlink(), "tree.json: is missing"),
        (lambda path: (path / "manifest.json").unlink(), "manifest.json: is missing"),
        (lambda path: link(path / "tree.json"), "tree.json: is no regular file"),
        (lambda path: os.truncate(path / "tree.json", 3), "tree.json: has 3 bytes, not 11"),
        (
            lambda path: forge(path, lambda one: one.update(step=3)),
            "manifest.json: is that of step-00000003-epoch-0",
        ),
        (
            lambda path: forge(path, lambda one: one["groups"]["model"].update(sha256="0" * 64)),
            "manifest.json: tells another digest of model",
        ),
        (
            lambda path: forge(path, lambda one: one["files"].pop("tree.json")),
            "tree.json: is no file of this checkpoint",
        ),
        (
            lambda path: forge(path, lambda one: one.update(groups=[])),
            "manifest.json: is no manifest of a checkpoint",
        ),
        (
            lambda path: (path / "manifest.json").write_text("[" * 100_000),
            "manifest.json: is nested too deeply",
        ),
    ],
)
def test_fault_is_named(spoil: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    """By its file, and nothing is followed out of the folder."""
    save(tmp_path)
    spoil(tmp_path / FOLDER)
    with pytest.raises(CheckpointFault) as caught:
        read_partitioned(tmp_path, FOLDER)
    assert f"{caught.value.path.name}: {caught.value}" == message


def link(path: Path) -> None:
    path.rename(path.parents[2] / "elsewhere")
    path.symlink_to(path.parents[2] / "elsewhere")


def test_pointer_leads_to_its_folder(tmp_path: Path) -> None:
    """By a path that stays right if the folder of the run is moved."""
    save(tmp_path / "a")
    write_pointer(tmp_path / "a/epoch-0", run_dir=tmp_path / "a", folder=tmp_path / "a" / FOLDER)
    (tmp_path / "a").rename(tmp_path / "b")
    assert read_pointer(tmp_path / "b/epoch-0", run_dir=tmp_path / "b") == FOLDER


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"checkpoint": "."}, "`schema` must be 'elche/epoch-pointer-v1', got None"),
        ({"schema": "elche/epoch-pointer-v1", "checkpoint": 3}, "`checkpoint` must be the path"),
        ({"schema": "elche/epoch-pointer-v1", "checkpoint": "../x"}, "must lie in the folder"),
        ({"schema": "elche/epoch-pointer-v1", "checkpoint": "/tmp"}, "must lie in the folder"),
        ({"schema": "elche/epoch-pointer-v1", "checkpoint": "out"}, "must be no link"),
        ({"schema": "elche/epoch-pointer-v1", "checkpoint": "gone"}, "checkpoint gone is missing"),
    ],
)
def test_pointer_that_leads_elsewhere_is_refused(
    told: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """Out of the folder of the run, or nowhere."""
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "out").symlink_to(tmp_path)
    (run_dir / "pointer").write_text(json.dumps(told))
    with pytest.raises(ValueError, match=message):
        read_pointer(run_dir / "pointer", run_dir=run_dir)


def judged(run_dir: Path) -> GateResult:
    """Judge a run whose first checkpoint is a folder."""
    manifest = save(run_dir)
    write_pointer(run_dir / "ckpt/epoch-000.ckpt", run_dir=run_dir, folder=run_dir / FOLDER)
    edit(
        run_dir / "ckpt/epoch-000.metadata.json",
        optimizer_state_algo="file-sha256",
        optimizer_state_sha=optimizer_state_sha(manifest.groups),
        checkpoint_sha256=manifest.content_sha256,
        checkpoint_bytes=None,
    )
    for epoch in (1, 2):
        os.remove(run_dir / f"ckpt/epoch-00{epoch}.ckpt")
        os.remove(run_dir / f"ckpt/epoch-00{epoch}.metadata.json")
    edit(run_dir / "run.json", epochs_completed=1)
    return result_of(run_dir)


def result_of(run_dir: Path) -> GateResult:
    (result,) = check_run(run_dir, gates=["GATE-TRAIN-002"]).gates
    return result


def test_digest_that_was_told_must_be_that_of_the_folder(tmp_path: Path) -> None:
    """A whole checkpoint is not enough."""
    run_dir = train_healthily(tmp_path)
    assert judged(run_dir).verdict.value == "PASS"
    for name in ("optimizer_state_sha", "checkpoint_sha256"):
        edit(run_dir / "ckpt/epoch-000.metadata.json", **{name: "ab" * 32})
    result = result_of(run_dir)
    assert len(result.findings) == 2
    assert all(f"not {'ab' * 32}" in finding.message for finding in result.findings)


def test_checkpoint_of_a_newer_format_cannot_be_judged(tmp_path: Path) -> None:
    """It neither passes nor fails."""
    run_dir = train_healthily(tmp_path)
    judged(run_dir)
    forge(run_dir / FOLDER, lambda one: one.update(format="elche-checkpoint-2"))
    result = result_of(run_dir)
    assert result.verdict.value == "INDETERMINATE"
    assert "has format 'elche-checkpoint-2', this release reads" in result.reason
