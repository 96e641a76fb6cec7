"""Reading a checkpoint: what is not plainly its own is refused."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from lightning_elche.partition import store_seal
from lightning_elche.partition.errors import (
    Corrupt,
    Incomplete,
    NoCheckpointFound,
    PlanMismatch,
    UnsafePath,
    UnsupportedFormat,
)
from lightning_elche.partition.fs import LocalFs
from lightning_elche.partition.image import HostTensor
from lightning_elche.partition.manifest import MANIFEST, encode_manifest
from lightning_elche.partition.plan import PartitionPlan
from lightning_elche.partition.read_checkpoint import (
    read_checkpoint,
    read_manifest,
    verify_checkpoint,
)
from tests.partition.manifests import forge
from tests.partition.states import make_snapshot, make_store, make_tensor, weight_of

FS = LocalFs()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A checkpoint of step 7."""
    return make_store(tmp_path / "root").save(make_snapshot(7)).path


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """A checkpoint of three parts, each in a file of its own."""
    big = HostTensor.of("w", np.arange(40_000, dtype=np.float32))
    state = make_snapshot(7, groups={"model": [big]}, plan=PartitionPlan.row_ranges(3, 3))
    return make_store(tmp_path / "sharded", layout="sharded").save(state).path


def test_tensors_come_back_with_their_bits(tmp_path: Path) -> None:
    """Types that numpy lacks, NaN payloads, negative zeros and empty tensors are kept."""
    bits = np.array([0x7FC00001, 0x80000000, 0x7F800000], dtype=np.uint32)
    tensors = [
        HostTensor.of("f", bits.view(np.float32)),
        HostTensor(name="b", dtype="BF16", shape=(2,), data=memoryview(b"\x80\x3f\x00\xc0")),
        HostTensor.of("e", np.empty((0, 4), dtype=np.int8)),
        HostTensor.of("c", np.array([[1 + 2j]])),
        HostTensor.of("s", np.float16(3.5).reshape(())),
    ]
    saved = make_store(tmp_path).save(make_snapshot(7, groups={"model": tensors}))
    read = read_checkpoint(FS, saved.path).groups["model"]
    assert {name: bytes(one.data) for name, one in read.items()} == {
        one.name: bytes(one.data) for one in tensors
    }
    assert [read["c"].logical_dtype, read["s"].shape, read["e"].shape] == ["complex128", (), (0, 4)]


def test_alias_shares_the_bytes_of_its_tensor(tmp_path: Path) -> None:
    """Tied tensors are stored once, and one memory serves both when they are read."""
    tied = HostTensor.of("tied", np.full(3, 7.0, dtype=np.float32), alias_of="w")
    saved = make_store(tmp_path).save(
        make_snapshot(7, groups={"model": [make_tensor("w", 7.0), tied]})
    )
    model = read_checkpoint(FS, saved.path).groups["model"]
    assert model["tied"].alias_of == "w"
    assert np.shares_memory(model["tied"].array(), model["w"].array())


def test_groups_can_be_read_alone(tmp_path: Path) -> None:
    """A rank reads its own groups; damage elsewhere is not its concern, nor is it looked for."""
    groups = {"model": [make_tensor("w", 7.0)], "optimizer-0@r1": [make_tensor("m", 1.0)]}
    path = make_store(tmp_path).save(make_snapshot(7, groups=groups)).path
    file = path / "optimizer-0@r1.safetensors"
    file.write_bytes(bytes(file.stat().st_size))
    assert weight_of(read_checkpoint(FS, path, groups=("model",))) == 7.0
    with pytest.raises(Corrupt, match="optimizer-0@r1"):
        read_checkpoint(FS, path)


def test_linked_file_is_refused(path: Path, tmp_path: Path) -> None:
    """A file that is a link is not followed, even to what it should be."""
    file = path / "model.safetensors"
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafePath, match="is a link"):
        read_checkpoint(FS, path)


def test_linked_folder_is_refused(path: Path) -> None:
    """A checkpoint that is a link is not followed."""
    moved = path.rename(path.with_name("moved"))
    path.symlink_to(moved)
    with pytest.raises(UnsafePath, match="no folder"):
        read_checkpoint(FS, path)


def test_pipe_in_place_of_a_file_does_not_hang(path: Path) -> None:
    """A named pipe is refused at once, not waited for."""
    (path / "tree.json").unlink()
    os.mkfifo(path / "tree.json")
    with pytest.raises(UnsafePath, match=r"tree\.json"):
        read_checkpoint(FS, path)


def test_unlisted_file_is_refused(path: Path) -> None:
    """A file that the manifest does not list makes the checkpoint suspect."""
    (path / "model.pkl").write_bytes(b"")
    with pytest.raises(Corrupt, match=r"model\.pkl"):
        read_checkpoint(FS, path)


@pytest.mark.parametrize("name", ["step-00000008", "step-00000007-best", "other"])
def test_renamed_folder_is_refused(path: Path, name: str) -> None:
    """A checkpoint under another step, label or name is not read."""
    with pytest.raises(Corrupt, match="it is the checkpoint step-00000007"):
        read_checkpoint(FS, path.rename(path.with_name(name)))


def test_swapped_parts_are_refused(sharded: Path) -> None:
    """Files of parts that were exchanged do not make up the state."""
    first, second, spare = (sharded / name for name in ("model.part-0001", "model.part-0002", "x"))
    assert read_checkpoint(FS, sharded).groups["model"]["w"].array()[39_999] == 39_999
    for source, target in ((first, spare), (second, first), (spare, second)):
        source.rename(target)
    with pytest.raises(Exception, match=r"model\.part-000[12]"):
        read_checkpoint(FS, sharded)


def test_part_of_another_step_is_refused(sharded: Path, tmp_path: Path) -> None:
    """A part of the same length from another checkpoint is not mixed in."""
    other = HostTensor.of("w", np.zeros(40_000, dtype=np.float32))
    state = make_snapshot(8, groups={"model": [other]}, plan=PartitionPlan.row_ranges(3, 3))
    source = make_store(tmp_path / "other", layout="sharded").save(state).path
    shutil.copy(source / "model.part-0001", sharded / "model.part-0001")
    with pytest.raises(Corrupt, match=r"partition 1, rows 1\.\.2"):
        read_checkpoint(FS, sharded)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", ".hidden", "sub/model.safetensors"])
def test_path_that_leads_out_is_refused(path: Path, name: str) -> None:
    """A manifest that lists a file outside of its folder is refused, its digest being right."""

    def lead_out(node: dict[str, dict[str, object]]) -> None:
        node["files"][name] = node["files"].pop("tree.json")

    forge(path, lead_out)
    with pytest.raises(Corrupt, match="/files must be an object with keys like"):
        read_manifest(FS, path)


def test_absent_digest_is_refused(path: Path) -> None:
    """A manifest without a digest is not read without one."""
    forge(path, lambda node: node.pop("digest"), should_seal=False)
    with pytest.raises(Corrupt, match="digest is absent"):
        read_manifest(FS, path)


def test_newer_format_is_named(path: Path) -> None:
    """A checkpoint of a later release is told apart from a damaged one."""
    forge(path, lambda node: node.update(format="elche-checkpoint-2"))
    with pytest.raises(UnsupportedFormat, match="elche-checkpoint-2"):
        read_manifest(FS, path)


def test_manifest_of_another_plan_is_refused(sharded: Path) -> None:
    """Parts that are bound to another plan do not pass for those of this one."""
    manifest = read_manifest(FS, sharded)
    plan = manifest.plan.with_workers(["a", "b", "c"])
    forged = encode_manifest(type(manifest)(**{**vars(manifest), "plan": plan}))
    (sharded / MANIFEST).write_bytes(forged)
    with pytest.raises(PlanMismatch):
        read_manifest(FS, sharded)


def test_deep_check_finds_lanes_that_are_not_those_of_the_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer whose lanes are wrong is found by a deep check, and by no other."""
    with monkeypatch.context() as patch:
        patch.setattr(store_seal, "tensor_lanes", lambda *_, first_row: (1, first_row))
        path = make_store(tmp_path).save(make_snapshot(7)).path
    assert verify_checkpoint(FS, path, "full").lanes == (1, 0)
    with pytest.raises(Corrupt, match="tensor 'w' has other lanes"):
        verify_checkpoint(FS, path, "deep")


def test_deep_check_finds_a_tree_that_cannot_be_decoded(tmp_path: Path) -> None:
    """A tree that is no tree is found by a deep check."""
    path = make_store(tmp_path).save(make_snapshot(7, tree=b'{"a": 1}')).path
    assert verify_checkpoint(FS, path, "full").step == 7
    with pytest.raises(Corrupt, match=r"canonical form \(tree\.json\)"):
        verify_checkpoint(FS, path, "deep")


@pytest.mark.parametrize(("size", "error"), [(-1, Incomplete), (1, Corrupt)])
def test_lengths_are_known_without_reading(path: Path, size: int, error: type[Exception]) -> None:
    """A file that is too short or too long is found by the quickest check."""
    file = path / "model.safetensors"
    os.truncate(file, file.stat().st_size + size)
    with pytest.raises(error, match=r"model\.safetensors"):
        read_manifest(FS, path)


def test_missing_folder_is_no_checkpoint(tmp_path: Path) -> None:
    """A path at which there is nothing raises an error that `FileNotFoundError` catches."""
    with pytest.raises(NoCheckpointFound):
        read_checkpoint(FS, tmp_path / "step-00000001")
