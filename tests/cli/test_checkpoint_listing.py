"""The verbs `ls` and `show` of `elche checkpoint`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_elche.cli.main import main
from lightning_elche.partition.fs import this_host
from lightning_elche.partition.image import HostTensor
from lightning_elche.partition.store_names import owned_name
from tests.partition.states import make_snapshot, make_store, make_tensor

NAN = HostTensor.of("w", np.array([np.nan], dtype=np.float32))


def report(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    main(["checkpoint", *map(str, arguments), "--format", "json"])
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def names(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> list[str]:
    return [item["name"] for item in report(capsys, "ls", *arguments)["items"]]


def test_list_has_a_row_for_each_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what a reader should know of it."""
    make_store(tmp_path, durability="flush").save(make_snapshot(7, world=2))
    make_store(tmp_path).save(make_snapshot(8, groups={"model": [NAN]}))
    assert main(["checkpoint", "ls", str(tmp_path)]) == 0
    heads, first, second = map(str.split, capsys.readouterr().out.splitlines())
    assert heads == ["NAME", "SEQUENCE", "STEP", "CREATED", "BYTES", "WORLD", "REMARKS"]
    assert first[:6] == ["step-00000007", "1", "7", "2027-01-15T08:00:00+00:00", "215", "2"]
    assert " ".join(first[6:]) == "may not survive a power cut"
    assert " ".join(second[6:]) == "not fit to resume from"


def test_list_is_in_the_order_of_saving(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that was set back has later checkpoints of earlier steps."""
    store = make_store(tmp_path)
    for step in (9, 3):
        store.save(make_snapshot(step))
    assert names(capsys, tmp_path) == ["step-00000009", "step-00000003"]


def test_all_adds_archive_quarantine_and_temporary_folders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The owner of a temporary folder is told."""
    store = make_store(tmp_path)
    for step in (1, 2):
        store.save(make_snapshot(step))
    store.rewind(1)
    store.quarantine(make_snapshot(3))
    temp = owned_name("tmp", 4, this_host().owner, "abcdef01")
    (tmp_path / temp).mkdir()
    os.mkfifo(tmp_path / "archive" / "pipe")
    items = report(capsys, "ls", tmp_path, "--all")["items"]
    assert {item["name"]: item["kind"] for item in items} == {
        "step-00000001": "checkpoint",
        "archive/s0/step-00000002": "archive",
        "quarantine/diverged-step-00000003": "quarantine",
        temp: "tmp",
    }
    assert items[-1]["remark"] == (
        f"of process {os.getpid()} on this machine: process {os.getpid()} may still use it"
    )


@pytest.mark.parametrize(("content", "code"), [("{}", 1), ('{"format":"elche-checkpoint-2"}', 4)])
def test_bad_manifest_is_listed(
    tmp_path: Path, content: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the reason; quarantine may hold what it likes."""
    store = make_store(tmp_path)
    manifest = store.save(make_snapshot(1)).path / "manifest.json"
    manifest.write_text(content, encoding="utf-8")
    (tmp_path / "quarantine" / "rejected").mkdir(parents=True)
    assert main(["checkpoint", "ls", str(tmp_path), "--all"]) == code
    assert str(manifest.parent) in capsys.readouterr().out


@pytest.mark.parametrize(("name", "code"), [("empty", 0), ("nowhere", 3), ("file", 3)])
def test_list_of_nothing_says_so(
    tmp_path: Path, name: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """On standard error."""
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    assert main(["checkpoint", "ls", str(tmp_path / name)]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert str(tmp_path / name) in captured.err


def test_show_tells_what_the_manifest_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also that a checkpoint may not survive a power cut."""
    snapshot = make_snapshot(7, sync_index=2, metrics={"loss": 0.5}, env={"torch": "2.13"})
    path = make_store(tmp_path, durability="flush").save(snapshot).path
    assert main(["checkpoint", "show", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith(("content", "fingerprint"))] == [
        "checkpoint   step-00000007",
        "created      2027-01-15T08:00:00+00:00, number 1 of its root",
        "run          r0, segment s0",
        "parent       none",
        "world        1, 2 averaging events",
        "resumable    yes",
        "durability   flush: survives the end of the process, not a power cut",
        "plan         single_process, partitions: 1",
        "optimizers   none",
        "group model  204 bytes, tensors: 1, files: 1",
        "metric loss  0.5",
        "env torch    2.13",
    ]


def test_show_tells_the_digest_that_sha256sum_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the states of the optimizer."""
    groups = {"model": [make_tensor("w", 1.0)], "optimizer-0": [make_tensor("w.m", 2.0)]}
    path = make_store(tmp_path).save(make_snapshot(7, groups=groups)).path
    found = report(capsys, "show", path)
    assert found["optimizer_state_sha"] == found["files"]["optimizer-0.safetensors"]["sha256"]


def test_tensors_and_tree_are_shown_on_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A tied tensor names the one that has its bytes."""
    tied = [make_tensor("w", 1.0), HostTensor.of("t", np.ones(3, np.float32), alias_of="w")]
    path = make_store(tmp_path).save(make_snapshot(7, groups={"model": tied})).path
    assert main(["checkpoint", "show", str(path), "--tensors", "--tree"]) == 0
    out = capsys.readouterr().out
    assert "\nmodel/t  F32    [3]    12     shares the bytes of w\n" in out
    assert out.endswith('\n{\n  "epoch": 7\n}\n')


def test_control_characters_are_not_sent_to_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A name of a run could clear the screen."""
    path = make_store(tmp_path).save(make_snapshot(7, run_id="\x1b[2J")).path
    assert main(["checkpoint", "show", str(path)]) == 0
    assert "\\x1b[2J, segment s0\n" in capsys.readouterr().out


def test_newest_good_one_of_a_root_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And which were skipped is said on standard error."""
    store = make_store(tmp_path)
    paths = [store.save(make_snapshot(step)).path for step in (1, 2)]
    (paths[1] / "tree.json").unlink()
    assert main(["checkpoint", "show", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("checkpoint   step-00000001\n")
    assert captured.err.splitlines()[0] == (
        f"elche: skipped: checkpoint {paths[1]} is incomplete: tree.json is missing"
    )


@pytest.mark.parametrize(("name", "code"), [("tree.json", 1), ("", 3)])
def test_show_fails_without_a_good_manifest(tmp_path: Path, name: str, code: int) -> None:
    """Exit code 1, or 3 if there is none at all."""
    path = make_store(tmp_path).save(make_snapshot(1)).path
    if name:
        (path / name).unlink()
    assert main(["checkpoint", "show", str(path if name else tmp_path / "step-00000002")]) == code


@pytest.mark.parametrize("depth", [700, 100_000])
@pytest.mark.parametrize("name", ["text", "json"])
def test_tree_that_is_nested_too_deep_is_no_traceback(
    tmp_path: Path, depth: int, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1 or 3, whichever part of Python gives up; 0 if none does."""
    path = make_store(tmp_path).save(make_snapshot(1, tree=b"[" * depth + b"]" * depth)).path
    code = main(["checkpoint", "show", str(path), "--tree", "--format", name])
    assert code in ((0, 1, 3) if depth < 1000 else (1, 3))
    assert code == 0 or str(path) in capsys.readouterr().err
