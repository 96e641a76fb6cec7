"""Collecting what dead processes have left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_elche.partition.fs import LocalFs, Owner, this_host
from lightning_elche.partition.gc import GcReport, collect_garbage
from lightning_elche.partition.store_config import StoreConfig
from lightning_elche.partition.store_names import (
    checkpoint_name,
    owned_name,
    parse_checkpoint_name,
    parse_owned_name,
)
from tests.partition.states import NOW, OWNER, make_host, make_snapshot, make_store, names_in

DAY_S = 24 * 3600


def collect(root: Path, *, keep: int | None = None, now: float = NOW) -> GcReport:
    config = None if keep is None else StoreConfig(max_retained=keep)
    host = make_host(now=now, is_alive=lambda pid: pid == 7)
    return collect_garbage(host, root, config=config, should_apply=True)


def leave(root: Path, kind: str, owner: Owner) -> str:
    """Make a folder of `owner` with a file in a folder in it."""
    name = owned_name(kind, 1, owner, "abcdef01")
    (root / name / "sub").mkdir(parents=True)
    (root / name / "sub" / "file").write_bytes(b"x")
    return name


@pytest.mark.parametrize(
    ("kind", "owner", "is_removed", "reason"),
    [
        ("tmp", Owner("here", "boot", 8), True, "there is no process 8"),
        ("trash", Owner("here", "boot", 8), True, "there is no process 8"),
        ("tmp", Owner("here", "boot", 7), False, "process 7 may still use it"),
        ("trash", OWNER, True, "this process could not remove it before"),
        ("tmp", Owner("here", "earlier", 7), True, "its owner ended with the machine's last run"),
    ],
)
def test_folder_of_this_machine_goes_with_its_owner(
    tmp_path: Path, kind: str, owner: Owner, is_removed: bool, reason: str
) -> None:
    """What a dead process has left is removed; what a living one may use is not."""
    name = leave(tmp_path, kind, owner)
    (fate,) = collect(tmp_path).fates
    assert (fate.is_removed, fate.reason) == (is_removed, reason)
    assert (tmp_path / name).exists() is not is_removed


@pytest.mark.parametrize(("age_s", "is_removed"), [(DAY_S - 60, False), (DAY_S + 60, True)])
def test_folder_of_another_machine_goes_by_its_age(
    tmp_path: Path, age_s: float, is_removed: bool
) -> None:
    """Whether a process of another machine lives cannot be known, so that a day must pass."""
    name = leave(tmp_path, "tmp", Owner("there", "boot", 8))
    now = (tmp_path / name).stat().st_mtime + age_s
    assert collect(tmp_path, now=now).fates[0].is_removed is is_removed


@pytest.mark.parametrize("name", [".tmp-x", ".trash", "archive", "quarantine", ".git", "step-1"])
def test_folder_that_is_not_ours_stays(tmp_path: Path, name: str) -> None:
    """Only names that a store has given are touched."""
    (tmp_path / name).mkdir()
    assert collect(tmp_path, keep=1).fates == ()
    assert names_in(tmp_path) == [name]


def test_link_in_a_temporary_folder_is_not_followed(tmp_path: Path) -> None:
    """What a link leads to is left alone."""
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_bytes(b"x")
    (tmp_path / "root").mkdir()
    name = leave(tmp_path / "root", "tmp", Owner("here", "boot", 8))
    (tmp_path / "root" / name / "link").symlink_to(tmp_path / "precious")
    collect(tmp_path / "root")
    assert names_in(tmp_path / "root") == []
    assert names_in(tmp_path / "precious") == ["file"]


def test_checkpoints_stay_unless_a_number_is_given(tmp_path: Path) -> None:
    """Without a number no checkpoint goes; with one the oldest do."""
    store = make_store(tmp_path)
    for step in (1, 2, 3):
        store.save(make_snapshot(step))
    assert [fate.is_removed for fate in collect(tmp_path).fates] == [False] * 3
    assert [fate.is_removed for fate in collect(tmp_path, keep=1).fates] == [True, True, False]
    assert names_in(tmp_path) == ["step-00000003"]


def test_newest_that_can_be_read_stays(tmp_path: Path) -> None:
    """If those that stay are damaged, the newest whole one stays with them."""
    store = make_store(tmp_path)
    paths = [store.save(make_snapshot(step)).path for step in (1, 2, 3)]
    (paths[2] / "model.safetensors").write_bytes(
        bytes((paths[2] / "model.safetensors").stat().st_size)
    )
    fates = collect(tmp_path, keep=1).fates
    assert [(fate.name[-1], fate.reason) for fate in fates if not fate.is_removed] == [
        ("2", "the newest that is valid"),
        ("3", "among the newest"),
    ]


def test_damaged_checkpoint_is_left_for_inspection(tmp_path: Path) -> None:
    """What cannot be read is never removed."""
    (tmp_path / "step-00000001").mkdir()
    (fate,) = collect(tmp_path, keep=1).fates
    assert not fate.is_removed
    assert "left for inspection" in fate.reason


def test_dry_run_removes_nothing(tmp_path: Path) -> None:
    """Without being told to apply, a collection only says what it would do."""
    name = leave(tmp_path, "tmp", Owner("here", "boot", 8))
    report = collect_garbage(make_host(), tmp_path)
    assert report.fates[0].is_removed
    assert names_in(tmp_path) == [name]


def test_failure_to_remove_is_reported(tmp_path: Path) -> None:
    """What cannot be removed is listed with the reason, and the rest goes on."""

    class Stubborn(LocalFs):
        def unlink(self, path: Path) -> None:
            if "abcdef01" in str(path):
                raise OSError(13, "injected")
            super().unlink(path)

    bad = leave(tmp_path, "tmp", Owner("here", "boot", 8))
    good = owned_name("trash", 1, Owner("here", "boot", 8), "abcdef02")
    (tmp_path / good).mkdir()
    report = collect_garbage(make_host(Stubborn()), tmp_path, should_apply=True)
    assert report.failures == ((bad, "[Errno 13] injected"),)
    assert names_in(tmp_path) == [bad]


def test_folder_of_this_very_process_stays(tmp_path: Path) -> None:
    """The present process is known as the living owner that it is."""
    host = this_host()
    leave(tmp_path, "tmp", host.owner)
    (fate,) = collect_garbage(host, tmp_path, should_apply=True).fates
    assert not fate.is_removed
    assert not host.is_alive(2**22 + 1)  # above the largest id of Linux


@pytest.mark.parametrize(
    ("step", "label", "name"),
    [
        (0, None, "step-00000000"),
        (42, "epoch-3", "step-00000042-epoch-3"),
        (123_456_789, None, "step-123456789"),
    ],
)
def test_name_of_a_checkpoint_is_read_back(step: int, label: str | None, name: str) -> None:
    """The name tells step and label."""
    assert checkpoint_name(step, label) == name
    parsed = parse_checkpoint_name(name)
    assert parsed is not None
    assert (parsed.step, parsed.label) == (step, label)


@pytest.mark.parametrize(
    "name", ["step-42", "step-000000042", "step-00000042-", "step-00000042-A", "xstep-00000042"]
)
def test_other_names_are_not_those_of_checkpoints(name: str) -> None:
    """A name that a store would not give is not taken for a checkpoint."""
    assert parse_checkpoint_name(name) is None


def test_name_of_a_temporary_folder_tells_its_owner() -> None:
    """Machine and its run are told by digests of 8 digits, the process by its id."""
    name = owned_name("tmp", 42, OWNER, "0123456789abcdef")
    assert name == ".tmp-00000042-fcec9150-4509beb0-100-01234567"
    parsed = parse_owned_name(name)
    assert parsed is not None
    assert (parsed.is_of_host(OWNER), parsed.is_of_boot(OWNER), parsed.pid) == (True, True, 100)
