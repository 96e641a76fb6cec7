"""Faults of the file system: at each operation of a save, nothing is lost."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import pytest

from lightning_elche.partition.errors import CheckpointError, DurabilityUncertain, WriteFailed
from lightning_elche.partition.fs import Fs, LocalFs
from lightning_elche.partition.read_checkpoint import read_checkpoint
from lightning_elche.partition.read_root import choose_checkpoint
from lightning_elche.partition.store import CheckpointStore
from lightning_elche.partition.store_config import StoreConfig
from lightning_elche.testing.fault_fs import KINDS, FaultFs, Killed
from lightning_elche.testing.recording_fs import RecordingFs
from tests.partition.states import make_host, make_snapshot, make_store, names_in, weight_of

ROOT = Path("/ckpt")


def attempt(store: CheckpointStore, step: int) -> BaseException | None:
    """Save, and return the error if there was one."""
    try:
        store.save(make_snapshot(step))
    except (CheckpointError, Killed) as err:
        return err
    return None


def newest(fs: Fs, root: Path) -> float:
    """The weight of the checkpoint that is resumed from."""
    return weight_of(read_checkpoint(fs, choose_checkpoint(fs, root).path))


def judge(inner: Fs, root: Path, at: int, kind: str, *, is_lasting: bool = False) -> bool:
    """Save step 2 in a root with step 1, with a fault; return whether the fault came."""
    fs = FaultFs(inner, at=at, kind=kind, is_lasting=is_lasting)
    error = attempt(make_store(root, fs, max_retained=1), 2)
    found = newest(inner, root)
    assert found == 2.0 if error is None else found in (1.0, 2.0), (at, error)
    assert not fs.open, (at, error)
    has_failed = fs.failed is not None
    fs.heal()
    assert attempt(make_store(root, fs, pid=101, max_retained=1), 2) is None, at
    assert newest(inner, root) == 2.0, at
    assert list(inner.list_names(root)) == ["step-00000002"], (at, error)
    return has_failed


@pytest.mark.parametrize("is_lasting", [False, True], ids=["once", "lasting"])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_lost_whatever_operation_fails(kind: str, is_lasting: bool) -> None:
    """After any fault the newest saved state is there, the error has a type, a retry works."""
    for at in itertools.count():
        inner = RecordingFs()
        make_store(ROOT, inner).save(make_snapshot(1))
        if not judge(inner, ROOT, at, kind, is_lasting=is_lasting):
            break
    assert at == 27


@pytest.mark.parametrize("kind", ["EIO", "kill after"])
def test_nothing_is_lost_on_a_real_file_system(tmp_path: Path, kind: str) -> None:
    """The same holds for files on a disk."""
    old = tmp_path / "old"
    make_store(old).save(make_snapshot(1))
    for at in itertools.count():
        shutil.copytree(old, tmp_path / f"at-{at}")
        if not judge(LocalFs(), tmp_path / f"at-{at}", at, kind):
            break
    assert at == 27


def test_same_store_retries_after_a_fault() -> None:
    """The store whose save failed may be used again, as may its name for what it writes."""
    fs = FaultFs(RecordingFs(), at=9, kind="ENOSPC", is_lasting=True)
    store = make_store(ROOT, fs)
    assert isinstance(attempt(store, 1), WriteFailed)
    fs.heal()
    assert store.save(make_snapshot(1)).is_new


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A root with a checkpoint of step 1."""
    make_store(tmp_path / "old").save(make_snapshot(1))
    return tmp_path / "old"


def test_fault_before_the_rename_leaves_the_old_set(old: Path) -> None:
    """A full disk fails the save with its number, and removes what it had begun."""
    store = make_store(old, FaultFs(LocalFs(), at=4, kind="ENOSPC", is_lasting=True))
    error = attempt(store, 2)
    assert isinstance(error, WriteFailed)
    assert (error.errno, names_in(old)) == (28, ["step-00000001"])


def test_fault_after_the_rename_is_uncertain_until_a_retry() -> None:
    """If the root cannot be synced, the save says so; a retry finds the checkpoint and syncs."""
    uncertain = []
    for at in range(40):
        fs = FaultFs(RecordingFs(), at=at, kind="EIO")
        store = make_store(ROOT, fs)
        if isinstance(attempt(store, 2), DurabilityUncertain):
            fs.heal()
            uncertain.append(store.save(make_snapshot(2)).is_new)
    assert uncertain == [False]


def test_failed_fsync_is_not_repeated_on_the_same_file(old: Path) -> None:
    """An fsync that fails once leads to a new temporary folder, not to a second fsync."""
    calls: list[str] = []

    class Watching(FaultFs):
        def _do(self, name: str, args: tuple[object, ...]) -> object:
            calls.append(name)
            return super()._do(name, args)

        def _fail(self, name: str, args: tuple[object, ...]) -> object:
            calls.append(f"failed {name}")
            return super()._fail(name, args)

    store = make_store(old, Watching(LocalFs(), at=4, kind="EIO"))
    assert store.save(make_snapshot(2)).is_new
    assert calls[:9] == [
        "fsync_folder",
        "make_folder",
        "create",
        "pwrite",
        "failed fsync",
        "close",
        "unlink",
        "remove_folder",
        "make_folder",
    ]


def test_read_errors_are_those_of_a_checkpoint(old: Path) -> None:
    """A disk that cannot be read is reported with the name of the file, not as an `OSError`."""

    class Unreadable(LocalFs):
        def pread_into(self, descriptor: int, buffer: memoryview, offset: int) -> int:
            raise OSError(5, "injected")

    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        read_checkpoint(Unreadable(), old / "step-00000001")


def test_flush_leaves_out_every_fsync(tmp_path: Path) -> None:
    """With `durability="flush"` nothing waits for the disk, and the checkpoint says so."""

    class Unsynced(LocalFs):
        def fsync(self, descriptor: int) -> None:
            raise AssertionError

        def fsync_folder(self, path: Path) -> None:
            raise AssertionError

    config = StoreConfig(durability="flush", max_retained=1)
    store = CheckpointStore(tmp_path / "root", host=make_host(Unsynced()), config=config)
    store.save(make_snapshot(1))
    assert store.save(make_snapshot(2)).manifest.durability == "flush"
