"""The verb `gc` of `elche checkpoint`."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lightning_elche.cli.main import main
from lightning_elche.partition.fs import this_host
from lightning_elche.partition.store_names import owned_name
from tests.partition.states import make_snapshot, make_store, names_in


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with four checkpoints, one of which has a label."""
    store = make_store(tmp_path / "root", max_retained=9)
    for step, loss in ((1, 0.1), (2, 0.4), (3, 0.2)):
        store.save(make_snapshot(step, metrics={"loss": loss}))
    store.save(make_snapshot(4, label="stop"))
    return store.root


def gc(root: Path, *arguments: str) -> int:
    return main(["checkpoint", "gc", str(root), *arguments])


def leave_by_a_dead_process(root: Path) -> str:
    """Make a temporary folder of a process of this machine that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    assert ended.wait(timeout=60) == 0
    name = owned_name("tmp", 5, replace(this_host().owner, pid=ended.pid), "abcdef01")
    (root / name).mkdir()
    return name


def test_nothing_is_removed_without_apply(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What would be is said, and why."""
    before = names_in(root)
    assert gc(root, "--keep", "1") == 0
    captured = capsys.readouterr()
    assert captured.out == (
        "REMOVE  step-00000001: older than the newest 1\n"
        "REMOVE  step-00000002: older than the newest 1\n"
        "KEEP    step-00000003: among the newest\n"
        "KEEP    step-00000004-stop: labelled 'stop'\n"
    )
    assert captured.err == "elche: nothing was removed; --apply removes\n"
    assert names_in(root) == before


def test_checkpoints_beyond_a_number_are_removed(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those that were asked for; a quiet command tells of them only."""
    assert gc(root, "--keep", "1", "--apply", "-q") == 0
    assert names_in(root) == ["step-00000003", "step-00000004-stop"]
    assert capsys.readouterr() == (
        "REMOVED  step-00000001: older than the newest 1\n"
        "REMOVED  step-00000002: older than the newest 1\n",
        "",
    )


@pytest.mark.parametrize(("mode", "best"), [("min", "step-00000001"), ("max", "step-00000002")])
def test_best_checkpoint_is_kept_on_request(root: Path, mode: str, best: str) -> None:
    """The run may have kept it for that."""
    assert gc(root, "--keep", "1", "--monitor", "loss", "--mode", mode, "--apply") == 0
    assert names_in(root) == [best, "step-00000003", "step-00000004-stop"]


def test_only_what_the_dead_have_left_goes_without_a_number(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All checkpoints stay."""
    name = leave_by_a_dead_process(root)
    assert gc(root, "--apply", "--format", "json") == 0
    assert len(names_in(root)) == 4
    items = json.loads(capsys.readouterr().out)["items"]
    assert [item["name"] for item in items if item["fate"] == "removed"] == [name]


def test_deletion_that_fails_is_exit_code_one(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are removed all the same."""

    def refuse(_self: object, path: Path, _target: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:  # root may do all, so that no real folder refuses
        patch.setattr("lightning_elche.partition.fs.LocalFs.rename", refuse)
        name = leave_by_a_dead_process(root)
        assert gc(root, "--keep", "2", "--apply") == 1
    out = capsys.readouterr().out
    assert "FAILED   step-00000001: [Errno 13] Permission denied" in out
    assert f"REMOVED  {name}: " in out


def test_root_is_not_a_checkpoint(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2: there is nothing to collect in one."""
    assert gc(root / "step-00000001") == 2
    assert "`ROOT` must be a folder of checkpoints" in capsys.readouterr().err


def test_missing_root_is_exit_code_three(tmp_path: Path) -> None:
    """Nothing can be said."""
    assert gc(tmp_path / "nowhere") == 3


def test_monitor_is_for_a_number(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2: without `--keep` all stay."""
    assert gc(root, "--monitor", "loss") == 2
    assert "`--monitor` must be given with `--keep`" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--mode", "max"], ["--keep-best", "2"]])
def test_best_is_for_a_monitor(
    root: Path, option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, and nothing is removed: without a metric no checkpoint is the best."""
    assert gc(root, "--keep", "1", "--apply", *option) == 2
    assert f"`{option[0]}` must be given with `--monitor`" in capsys.readouterr().err
    assert len(names_in(root)) == 4


@pytest.mark.parametrize("number", ["0", "-1", "x", "\u00b2"])
def test_number_is_at_least_one(root: Path, number: str) -> None:
    """Argparse's exit code is 2."""
    with pytest.raises(SystemExit, match="2"):
        gc(root, "--keep", number)


def test_empty_root_is_said_to_be_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Instead of nothing at all."""
    assert gc(tmp_path) == 0
    assert capsys.readouterr() == ("", f"elche: {tmp_path} has nothing to remove\n")
