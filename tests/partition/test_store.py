"""A folder of checkpoints."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_elche.partition.errors import (
    CheckpointError,
    DivergentWriters,
    NoCheckpointFound,
    NoValidCheckpoint,
    PartitionPlanError,
    WriteFailed,
)
from lightning_elche.partition.fs import LocalFs
from lightning_elche.partition.image import HostTensor
from lightning_elche.partition.plan import PartitionPlan
from lightning_elche.partition.read_checkpoint import read_checkpoint, verify_checkpoint
from lightning_elche.partition.store import CheckpointStore
from lightning_elche.testing import RecordingFs
from tests.partition.states import (
    make_host,
    make_snapshot,
    make_store,
    make_tensor,
    names_in,
    weight_of,
)


def test_save_makes_the_root_with_its_permissions(tmp_path: Path) -> None:
    """Folders that are missing are made for their owner only; the listing is complete."""
    root = tmp_path / "a" / "b"
    path = make_store(root).save(make_snapshot(42)).path
    assert path == root / "step-00000042"
    assert [stat.S_IMODE(p.stat().st_mode) for p in (root.parent, root, path)] == [0o700] * 3
    assert names_in(path) == ["manifest.json", "model.safetensors", "replay.jsonl", "tree.json"]


def test_state_comes_back(tmp_path: Path) -> None:
    """Tensors, tree, record of replay and what is said of them are loaded as saved."""
    store = make_store(tmp_path)
    saved = store.save(make_snapshot(42, replay=b"{}\n", label="stop", metrics={"loss": 0.1}))
    read = store.load(saved.path)
    assert (weight_of(read), read.tree, read.replay) == (42.0, b'{"epoch":42}', b"{}\n")
    assert (read.manifest.label, read.manifest.metrics) == ("stop", {"loss": 0.1})
    assert read.manifest.created == "2027-01-15T08:00:00+00:00"


def test_newest_is_chosen_by_sequence(tmp_path: Path) -> None:
    """What was saved last is resumed from, be its step lower."""
    store = make_store(tmp_path)
    for step in (5, 9, 7):
        store.save(make_snapshot(step))
    assert store.choose().path.name == "step-00000007"


def test_sequence_goes_on_in_another_process(tmp_path: Path) -> None:
    """A new store counts from what is there."""
    make_store(tmp_path).save(make_snapshot(9))
    assert make_store(tmp_path).save(make_snapshot(5)).manifest.sequence == 2


def test_saving_evicts_the_oldest(tmp_path: Path) -> None:
    """No more than `max_retained` stay, and nothing is left of the others."""
    store = make_store(tmp_path, max_retained=2)
    evicted = [store.save(make_snapshot(step)).evicted for step in (1, 2, 3)]
    assert evicted == [(), (), ("step-00000001",)]
    assert names_in(tmp_path) == ["step-00000002", "step-00000003"]


def test_best_one_is_kept_by_its_metric(tmp_path: Path) -> None:
    """The monitored metric is read from what was saved, in this process or before."""
    for step, loss in ((1, 0.5), (2, 0.1), (3, 0.3), (4, float("nan"))):
        store = make_store(tmp_path, max_retained=1, monitor="loss")
        store.save(make_snapshot(step, metrics={"loss": loss}))
    assert names_in(tmp_path) == ["step-00000002", "step-00000004"]


@pytest.mark.parametrize("options", [{"value": np.nan}, {"is_sound": False}])
def test_state_with_nan_is_kept_but_not_resumed_from(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    """NaN in the model, or an objection, is passed over and evicts nothing."""
    store = make_store(tmp_path, max_retained=1)
    store.save(make_snapshot(1))
    store.save(make_snapshot(2, **options))
    choice = store.choose()
    assert (choice.manifest.step, choice.rejections[0][0]) == (1, "step-00000002")
    assert "not fit to resume from" in choice.rejections[0][1]


def test_infinity_in_the_model_is_legal(tmp_path: Path) -> None:
    """Masks hold infinities."""
    store = make_store(tmp_path)
    store.save(make_snapshot(1, value=-np.inf))
    assert store.choose().manifest.finite


def test_only_bad_checkpoints_are_no_fresh_start(tmp_path: Path) -> None:
    """If none can be resumed from, the error tells what is wrong with each."""
    store = make_store(tmp_path)
    path = store.save(make_snapshot(1)).path
    (path / "tree.json").write_bytes(b"{}")
    (tmp_path / "step-00000002").mkdir()
    with pytest.raises(NoValidCheckpoint) as caught:
        store.choose()
    assert [name for name, _ in caught.value.rejections] == ["step-00000001", "step-00000002"]


@pytest.mark.parametrize("root", [".", "missing"])
def test_root_without_checkpoints_is_told_apart(tmp_path: Path, root: str) -> None:
    """Nothing to resume from is an error of its own; temporary folders are nothing."""
    (tmp_path / ".tmp-00000001-00000000-00000000-1-00000000").mkdir()
    with pytest.raises(NoCheckpointFound):
        make_store(tmp_path / root).choose()


def test_saving_the_same_again_changes_nothing(tmp_path: Path) -> None:
    """An equal checkpoint in the place is a success, and the one that was there stays."""
    store = make_store(tmp_path)
    first = store.save(make_snapshot(1))
    second = store.save(make_snapshot(1, metrics={"loss": 1.0}))
    assert (second.is_new, second.manifest.sequence) == (False, first.manifest.sequence)
    assert names_in(tmp_path) == ["step-00000001"]


def test_saving_another_state_of_a_step_keeps_both(tmp_path: Path) -> None:
    """Writers that disagree get an error with both digests; the later state is in quarantine."""
    store = make_store(tmp_path)
    first = store.save(make_snapshot(1)).manifest
    with pytest.raises(DivergentWriters) as caught:
        store.save(make_snapshot(1, value=8.0))
    (aside,) = (tmp_path / "quarantine").iterdir()
    other = read_checkpoint(LocalFs(), aside)
    assert weight_of(other) == 8.0
    assert (caught.value.expected, caught.value.actual) == (
        first.content_sha256,
        other.manifest.content_sha256,
    )
    assert weight_of(store.load(tmp_path / "step-00000001")) == 1.0


def test_damaged_checkpoint_makes_room(tmp_path: Path) -> None:
    """A step is saved again where a damaged one lies, which is kept for inspection."""
    store = make_store(tmp_path)
    path = store.save(make_snapshot(1)).path
    (path / "tree.json").unlink()
    assert store.save(make_snapshot(1)).is_new
    assert weight_of(store.load(path)) == 1.0
    assert names_in(tmp_path / "quarantine") == ["rejected-step-00000001-00006402"]


def test_quarantine_keeps_the_newest(tmp_path: Path) -> None:
    """States set aside are whole, are never resumed from, and do not fill the disk."""
    store = make_store(tmp_path, max_quarantined=2)
    paths = [store.quarantine(make_snapshot(step)) for step in (1, 2, 2, 3)]
    assert [path.exists() for path in paths] == [False, False, True, True]
    assert paths[-1].name == "diverged-step-00000003"
    assert verify_checkpoint(LocalFs(), paths[2], "deep").step == 2
    with pytest.raises(NoCheckpointFound):
        store.choose()


def test_rewind_moves_later_ones_to_the_archive(tmp_path: Path) -> None:
    """Steps after the one that is resumed from are kept, by the segment they come from."""
    store = make_store(tmp_path)
    for step, segment in ((1, "s0"), (2, "s1"), (3, "s1")):
        store.save(make_snapshot(step, segment=segment))
    (tmp_path / "step-00000004").mkdir()
    assert store.rewind(1) == ("step-00000002", "step-00000003", "step-00000004")
    assert names_in(tmp_path / "archive" / "s1") == ["step-00000002", "step-00000003"]
    assert names_in(tmp_path / "archive" / "unreadable") == ["step-00000004"]
    assert store.save(make_snapshot(2, value=8.0, segment="s2")).manifest.sequence == 4


def test_rewind_of_the_same_segment_twice_overwrites_nothing(tmp_path: Path) -> None:
    """A second folder is made where the archive has that checkpoint."""
    store = make_store(tmp_path)
    for value in (1.0, 2.0):
        store.save(make_snapshot(2, value=value))
        store.rewind(1)
    found = sorted((tmp_path / "archive").rglob("step-*"))
    assert [weight_of(read_checkpoint(LocalFs(), path)) for path in found] == [1.0, 2.0]


def test_rewind_can_be_refused(tmp_path: Path) -> None:
    """With `on_rewind="raise"` the error names what is in the way, and all stays."""
    store = make_store(tmp_path, on_rewind="raise")
    store.save(make_snapshot(2))
    with pytest.raises(CheckpointError, match=r"after step 1 exist in .*: step-00000002"):
        store.rewind(1)
    assert names_in(tmp_path) == ["step-00000002"]
    assert store.rewind(2) == ()


def test_preflight_leaves_nothing(tmp_path: Path) -> None:
    """The probe writes where checkpoints will be, and is removed."""
    make_store(tmp_path / "root").preflight(1000)
    assert names_in(tmp_path / "root") == []


def test_preflight_fails_without_space_for_two() -> None:
    """Too little space is found before there is a checkpoint to lose."""
    store = make_store(Path("/root"), RecordingFs())  # 1 TiB free
    store.preflight(1 << 39)
    with pytest.raises(WriteFailed, match="two checkpoints need 1099511627778 bytes"):
        store.preflight((1 << 39) + 1)


def test_preflight_fails_where_nothing_can_be_written(tmp_path: Path) -> None:
    """A root that is a file is refused with the type of a failed save."""
    (tmp_path / "root").write_bytes(b"")
    with pytest.raises(WriteFailed):
        make_store(tmp_path / "root").preflight(1)


def test_read_back_finds_a_disk_that_keeps_other_bytes(tmp_path: Path) -> None:
    """With `read_back`, what was written is read and compared before the save returns."""

    class Flipping(LocalFs):
        def pwrite(self, descriptor: int, data: memoryview, offset: int) -> int:
            wrong = bytearray(data)
            if not bytes(data).startswith(b"{"):  # the tensors
                wrong[-1] ^= 1
            return super().pwrite(descriptor, memoryview(wrong), offset)

    make_store(tmp_path / "a", Flipping()).save(make_snapshot(1))
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        make_store(tmp_path / "b", Flipping(), read_back=True).save(make_snapshot(1))


def test_threads_write_the_same_files(tmp_path: Path) -> None:
    """Parts written by several threads at once make up the same checkpoint."""
    groups = {
        "model": [HostTensor.of("w", np.arange(300_000, dtype=np.float32))],
        "optimizer-0": [HostTensor.of("m", np.arange(200_000, dtype=np.float64))],
    }
    plan = PartitionPlan.row_ranges(make_snapshot(1, groups=groups).row_space().num_rows, 7)
    state = make_snapshot(1, groups=groups, plan=plan)
    alone = make_store(tmp_path / "a").save(state).manifest
    with ThreadPoolExecutor(4) as pool:
        store = CheckpointStore(tmp_path / "b", host=make_host(), run=pool.map)
        together = store.save(state).manifest
    assert together == alone
    assert verify_checkpoint(LocalFs(), tmp_path / "b" / alone.name, "deep") == alone


def test_files_stay_open_while_a_thread_writes(tmp_path: Path) -> None:
    """If one thread fails, the others end before their files are closed and numbers reused."""
    entered, failed, ended = (threading.Event() for _ in range(3))
    closed_early: list[int] = []

    class HalfFull(LocalFs):
        model = -1

        def create(self, path: Path) -> int:
            descriptor = super().create(path)
            self.model = descriptor if path.name == "model.safetensors" else self.model
            return descriptor

        def pwrite(self, descriptor: int, data: memoryview, offset: int) -> int:
            if descriptor == self.model:
                assert entered.wait(10)
                failed.set()
                raise OSError(28, "injected")
            entered.set()
            assert failed.wait(10)
            for _ in range(2000):
                os.sched_yield()  # time for what should wait
            written = super().pwrite(descriptor, data, offset)
            ended.set()
            return written

        def close(self, descriptor: int) -> None:
            if failed.is_set() and not ended.is_set():
                closed_early.append(descriptor)
            super().close(descriptor)

    groups = {
        "model": [make_tensor("w", 1.0)],
        "optimizer-0": [make_tensor("m", 1.0)],
    }
    with ThreadPoolExecutor(2) as pool:
        store = CheckpointStore(tmp_path, host=make_host(HalfFull()), run=pool.map)
        with pytest.raises(WriteFailed, match="injected"):
            store.save(make_snapshot(1, groups=groups))
    assert (closed_early, ended.is_set(), names_in(tmp_path)) == ([], True, [])


@pytest.mark.parametrize(("num_hosts", "files"), [(1, 1), (2, 3)])
def test_parts_have_files_of_their_own_on_several_hosts(
    tmp_path: Path, num_hosts: int, files: int
) -> None:
    """Machines that share a network disk do not share a file."""
    groups = {"model": [HostTensor.of("w", np.arange(40_000, dtype=np.float32))]}
    plan = PartitionPlan.row_ranges(3, 3)
    store = make_store(tmp_path)
    saved = store.save(make_snapshot(1, groups=groups, plan=plan, num_hosts=num_hosts))
    assert len(saved.manifest.groups["model"].files) == files
    read = store.load(saved.path).groups["model"]["w"].array()
    assert read.tolist() == list(range(40_000))


def test_plan_for_other_rows_is_refused(tmp_path: Path) -> None:
    """A plan that does not fit the state fails before anything is written."""
    state = make_snapshot(1, plan=PartitionPlan.row_ranges(2, 2))
    with pytest.raises(PartitionPlanError):
        make_store(tmp_path).save(state)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": "Best"}, "`label` must have 1 to 32 lower-case .*, got 'Best'"),
        ({"label": "a" * 33}, "`label` must have"),
        ({"label": "-a"}, "`label` must have"),
        ({"segment": "../x"}, r"`segment` must have 1 to 64 .*, got '\.\./x'"),
        ({"sync_index": -1}, "`sync_index` must be >= 0, got -1"),
        ({"groups": {"model/x": []}}, "`groups` must have names like .*, got 'model/x'"),
    ],
)
def test_snapshot_is_refused_with_the_name_of_a_bad_field(
    options: dict[str, Any], message: str
) -> None:
    """What cannot be stored safely raises an error that names it."""
    with pytest.raises(ValueError, match=message):
        make_snapshot(1, **options)


def test_unexpected_error_leaves_no_temporary_folder(tmp_path: Path) -> None:
    """Whatever interrupts a save, such as Ctrl+C, its folder is removed."""

    class Interrupted(LocalFs):
        def pwrite(self, descriptor: int, data: memoryview, offset: int) -> int:
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        make_store(tmp_path, Interrupted()).save(make_snapshot(1))
    assert names_in(tmp_path) == []
