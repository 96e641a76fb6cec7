"""The verb `verify` of `elche checkpoint`."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_elche.cli import checkpoint_verify
from lightning_elche.cli.main import main
from lightning_elche.partition.fs import Fs
from lightning_elche.partition.manifest import Manifest
from lightning_elche.partition.read_checkpoint import Depth, verify_checkpoint
from tests.partition.states import make_snapshot, make_store

MODEL, MANIFEST = "model.safetensors", "manifest.json"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with two checkpoints."""
    store = make_store(tmp_path / "root")
    for step in (1, 2):
        store.save(make_snapshot(step))
    return store.root


@pytest.fixture
def newest(root: Path) -> Path:
    return root / "step-00000002"


def verify(path: Path | str, *arguments: str) -> int:
    return main(["checkpoint", "verify", str(path), *arguments])


def flip_last_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def fill_with_nul(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def replace_by_link(path: Path) -> None:
    path.rename(path.parents[2] / "elsewhere")
    path.symlink_to(path.parents[2] / "elsewhere")


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def write_other_format(path: Path) -> None:
    node = json.loads(path.read_bytes())
    path.write_text(json.dumps({**node, "format": "elche-checkpoint-2"}), encoding="utf-8")


def test_each_checkpoint_of_a_root_is_checked(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All are right: exit code 0."""
    assert verify(root) == 0
    assert capsys.readouterr().out == ("OK  step-00000001\nOK  step-00000002\n    2 in all: 2 ok\n")


def test_one_checkpoint_is_checked_alone(
    newest: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its path, and as the working directory."""
    assert verify(newest) == 0
    monkeypatch.chdir(newest)
    assert verify(".") == 0
    assert capsys.readouterr().out == "OK  step-00000002\n" * 2


def test_bad_checkpoint_does_not_hide_the_others(
    root: Path, newest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """File, partition and rows are named."""
    flip_last_bit(newest / MODEL)
    assert verify(root) == 1
    assert capsys.readouterr().out == (
        "OK   step-00000001\n"
        f"BAD  checkpoint {newest} is corrupt: its digest is another one "
        "(model.safetensors, partition 0, rows 0..1)\n"
        "     2 in all: 1 ok, 1 bad\n"
    )


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", [MODEL, MANIFEST, "tree.json"])
@pytest.mark.parametrize(
    "damage",
    [truncate, fill_with_nul, replace_by_link, replace_by_pipe, replace_by_folder, Path.unlink],
)
def test_damage_is_found_and_placed(
    newest: Path, name: str, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1 with the path, no traceback, and no waiting for a pipe."""
    damage(newest / name)
    assert verify(newest) == 1
    assert str(newest) in capsys.readouterr().out


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["pipe", "link", "file", "empty folder"])
def test_what_only_has_the_name_of_a_checkpoint_is_bad(
    root: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a root; a link leads to a good one, which a resumption would not take either."""
    path = root / "step-00000003"
    {
        "pipe": os.mkfifo,
        "link": lambda path: path.symlink_to(root / "step-00000002"),
        "file": Path.touch,
        "empty folder": Path.mkdir,
    }[kind](path)
    assert verify(root) == 1
    assert str(path) in capsys.readouterr().out.splitlines()[2]


def test_link_is_followed_to_a_root_but_not_to_a_checkpoint(root: Path, newest: Path) -> None:
    """One that is called like a checkpoint is refused, as by a resumption."""
    (root.parent / "latest").symlink_to(root)
    (root / "step-00000003").symlink_to(newest)
    (root / "other-name").symlink_to(newest)
    assert verify(root.parent / "latest" / "step-00000001") == 0
    assert [verify(root / name) for name in ("step-00000003", "other-name")] == [1, 0]


def test_checkpoint_that_goes_meanwhile_is_not_missed(
    root: Path, newest: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run has removed it for a newer one."""

    def verify_late(fs: Fs, path: Path, depth: Depth) -> Manifest:
        shutil.rmtree(root / "step-00000001", ignore_errors=True)
        return verify_checkpoint(fs, path, depth)

    monkeypatch.setattr(checkpoint_verify, "verify_checkpoint", verify_late)
    assert verify(root) == 0
    assert capsys.readouterr().out == f"OK  {newest.name}\n    1 in all: 1 ok\n"


def test_depth_decides_what_is_seen(tmp_path: Path, newest: Path) -> None:
    """A flipped bit in full; a tree that nothing has encoded only deep."""
    flip_last_bit(newest / MODEL)
    assert [verify(newest, "--shallow"), verify(newest)] == [0, 1]
    odd = make_store(tmp_path / "odd").save(make_snapshot(1, tree=b'{"a": 1}')).path
    assert [verify(odd), verify(odd, "--deep")] == [0, 1]


def test_quarantined_checkpoint_can_be_verified(tmp_path: Path) -> None:
    """Its name has the reason before it; a path relative to its folder will do."""
    path = make_store(tmp_path).quarantine(make_snapshot(7))
    assert path.name == "diverged-step-00000007"
    assert verify(path) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path.parent)
        assert verify(path.name) == 0


def test_other_format_is_exit_code_four(root: Path, newest: Path) -> None:
    """Unless another checkpoint is bad."""
    write_other_format(newest / MANIFEST)
    assert verify(root) == 4
    flip_last_bit(root / "step-00000001" / MODEL)
    assert verify(root) == 1


@pytest.mark.parametrize(
    "name", ["nowhere", "nowhere/step-00000001", "file", "empty", f"{'x' * 300}/step-00000001"]
)
def test_missing_or_unreadable_is_exit_code_three(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing was verified, which is no success."""
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    assert verify(tmp_path / name) == 3
    captured = capsys.readouterr()
    assert str(tmp_path / name) in captured.out + captured.err


@pytest.mark.parametrize("arguments", [["a\0b"], [""], ["a", "--shallow", "--deep"], []])
def test_wrong_usage_is_exit_code_two(arguments: list[str]) -> None:
    """Argparse tells what is wrong."""
    with pytest.raises(SystemExit, match="2"):
        main(["checkpoint", "verify", *arguments])
