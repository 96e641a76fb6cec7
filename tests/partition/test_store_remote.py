"""Checkpoints in object storage."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from lightning_elche.partition.errors import (
    CheckpointError,
    DivergentWriters,
    NoCheckpointFound,
    NoValidCheckpoint,
    WriteFailed,
)
from lightning_elche.partition.fs import LocalFs
from lightning_elche.partition.fs_remote import RemoteFolder
from lightning_elche.partition.read_checkpoint import read_checkpoint
from lightning_elche.partition.store_config import StoreConfig
from lightning_elche.partition.store_remote import RemoteStore
from tests.partition.states import make_host, make_snapshot, make_store, names_in, weight_of

FOLDERS = itertools.count()


@pytest.fixture(params=["memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty folder, in memory or on the disk."""
    path = f"/elche-{next(FOLDERS)}" if request.param == "memory" else str(tmp_path / "bucket")
    yield f"{request.param}://{path}"
    if request.param == "memory":
        files = fsspec.filesystem("memory")
        if files.exists(path):
            files.rm(path, recursive=True)


def remote_store(url: str, *, keep: int = 4) -> RemoteStore:
    config = StoreConfig(max_retained=keep)
    return RemoteStore(RemoteFolder(url), host=make_host(), config=config)


def pulled_weight(url: str, root: Path) -> float:
    return weight_of(read_checkpoint(LocalFs(), remote_store(url).pull(root)))


def test_checkpoint_goes_there_and_back(url: str, tmp_path: Path) -> None:
    """What was saved here is loaded elsewhere, the newest first; old ones are removed."""
    store, remote = make_store(tmp_path / "here"), remote_store(url, keep=2)
    for step in (1, 2, 3):
        assert remote.push(store.save(make_snapshot(step)).path)
    assert RemoteFolder(url).names() == ["step-00000002", "step-00000003"]
    assert pulled_weight(url, tmp_path / "there") == 3.0
    assert pulled_weight(url, tmp_path / "there") == 3.0
    assert names_in(tmp_path / "there") == ["step-00000003"]


def test_pushing_again_changes_nothing(url: str, tmp_path: Path) -> None:
    """An equal checkpoint that is there is a success."""
    path = make_store(tmp_path).save(make_snapshot(1)).path
    assert [remote_store(url).push(path) for _ in range(2)] == [True, False]


def test_other_state_of_a_step_is_refused(url: str, tmp_path: Path) -> None:
    """Writers that disagree get an error, and the first one's checkpoint stays."""
    first, second = (
        make_store(tmp_path / str(value)).save(make_snapshot(1, value=value)).path
        for value in (1.0, 2.0)
    )
    remote_store(url).push(first)
    with pytest.raises(DivergentWriters):
        remote_store(url).push(second)
    assert pulled_weight(url, tmp_path / "there") == 1.0


def test_checkpoint_without_a_manifest_does_not_count(url: str, tmp_path: Path) -> None:
    """A copy that was cut short is passed over, and completed by the next push."""
    store, remote = make_store(tmp_path / "here"), remote_store(url)
    remote.push(store.save(make_snapshot(1)).path)
    path = store.save(make_snapshot(2)).path
    RemoteFolder(url).upload(path / "model.safetensors", path.name, "model.safetensors")
    assert pulled_weight(url, tmp_path / "a") == 1.0
    assert remote.push(path)
    assert pulled_weight(url, tmp_path / "b") == 2.0


def test_damaged_copy_is_passed_over(url: str, tmp_path: Path) -> None:
    """An object that has changed leads to the checkpoint before it, and to nothing else."""
    store, remote = make_store(tmp_path / "here"), remote_store(url)
    for step in (1, 2):
        remote.push(store.save(make_snapshot(step)).path)
    other = make_store(tmp_path / "other").save(make_snapshot(9)).path / "model.safetensors"
    RemoteFolder(url).upload(other, "step-00000002", "model.safetensors")
    assert pulled_weight(url, tmp_path / "there") == 1.0
    assert names_in(tmp_path / "there") == ["step-00000001"]
    RemoteFolder(url).upload(other, "step-00000001", "model.safetensors")
    with pytest.raises(NoValidCheckpoint, match=r"model\.safetensors"):
        remote.pull(tmp_path / "fresh")


def test_damaged_local_copy_is_replaced(url: str, tmp_path: Path) -> None:
    """A bad copy in the local root is set aside, and the good one fetched."""
    remote_store(url).push(make_store(tmp_path / "here").save(make_snapshot(1)).path)
    path = remote_store(url).pull(tmp_path / "there")
    (path / "tree.json").write_bytes(b"{}")
    assert pulled_weight(url, tmp_path / "there") == 1.0
    assert len(names_in(tmp_path / "there" / "quarantine")) == 1


def test_empty_remote_is_told_apart(url: str, tmp_path: Path) -> None:
    """Nothing to fetch is an error of its own."""
    with pytest.raises(NoCheckpointFound):
        remote_store(url).pull(tmp_path)


def test_damaged_checkpoint_is_not_pushed(url: str, tmp_path: Path) -> None:
    """What must not be read is not copied."""
    path = make_store(tmp_path).save(make_snapshot(1)).path
    (path / "tree.json").unlink()
    with pytest.raises(CheckpointError):
        remote_store(url).push(path)
    assert RemoteFolder(url).names() == []


def test_failed_push_has_a_type_and_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that fails in the middle leaves nothing that counts."""
    url = f"file://{tmp_path / 'bucket'}"
    path = make_store(tmp_path / "here").save(make_snapshot(1)).path
    with monkeypatch.context() as patch:

        def fail(*_: object, **__: object) -> None:
            raise TimeoutError(110, "injected")

        patch.setattr(type(fsspec.filesystem("file")), "pipe_file", fail)
        with pytest.raises(WriteFailed, match="injected"):
            remote_store(url).push(path)
    with pytest.raises(NoCheckpointFound):
        remote_store(url).pull(tmp_path / "there")
    assert remote_store(url).push(path)
