"""The epochs in the folder of a run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lightning_elche.contracts.model import Contract
from lightning_elche.contracts.runfolder.artifacts import write_epoch
from lightning_elche.contracts.runfolder.epochdir import EpochFolder, read_epochs
from tests.contracts.epochs import epoch_record

DEFAULT = Contract.default()


def write(run_dir: Path, *names: str) -> None:
    """Write a checkpoint and metadata for each name of an epoch, such as "003"."""
    for name in names:
        path = run_dir / "ckpt" / f"epoch-{name}.metadata.json"
        write_epoch(path, epoch_record(int(name)))
        (run_dir / "ckpt" / f"epoch-{name}.ckpt").touch()


def read(run_dir: Path, *, run_id: str | None = None, before: int | None = None) -> EpochFolder:
    return read_epochs(run_dir, DEFAULT, run_id=run_id, before_epoch=before)


def problems_of(epochs: EpochFolder) -> list[tuple[str, str]]:
    return [(one.at.path, one.message) for one in epochs.problems]


def test_epochs_are_sorted_by_number(tmp_path: Path) -> None:
    """The epoch after 999 has four digits, and comes last."""
    write(tmp_path, "1000", "999", "002")
    epochs = read(tmp_path)
    assert [one.epoch for one in epochs.records] == [2, 999, 1000]
    assert list(epochs.checkpoints) == [2, 999, 1000]


def test_metadata_are_read_as_they_were_written(tmp_path: Path) -> None:
    """Numbers that 32 bits can hold come back unchanged."""
    write(tmp_path, "001")
    assert read(tmp_path).records == (epoch_record(1, train_ppl=12.1824942, val_ppl=15.6426315),)


def test_later_epochs_are_not_looked_at(tmp_path: Path) -> None:
    """Of a run that goes on, only what it has completed."""
    write(tmp_path, "000", "001")
    (tmp_path / "ckpt" / "epoch-002.metadata.json").write_text("{")
    epochs = read(tmp_path, before=1)
    assert (list(epochs.metadata), list(epochs.checkpoints)) == ([0], [0])
    assert epochs.problems == ()


@pytest.mark.parametrize("name", ["epoch-1.ckpt", "epoch-0001.ckpt"])
def test_other_spelling_of_an_epoch_is_a_problem(tmp_path: Path, name: str) -> None:
    """It does not count, whether or not the right one is there, too."""
    write(tmp_path, "000")
    (tmp_path / "ckpt" / name).touch()
    epochs = read(tmp_path)
    assert list(epochs.checkpoints) == [0]
    assert problems_of(epochs) == [(f"ckpt/{name}", "must be called ckpt/epoch-001.ckpt")]


@pytest.mark.parametrize("name", ["last.ckpt", "epoch-.ckpt", "epoch-001.ckpt.tmp", "epoch-x.ckpt"])
def test_other_files_are_passed_over(tmp_path: Path, name: str) -> None:
    """A folder of checkpoints may have other files."""
    write(tmp_path, "000")
    (tmp_path / "ckpt" / name).touch()
    assert read(tmp_path).problems == ()


def test_file_that_lies_elsewhere_is_a_problem(tmp_path: Path) -> None:
    """A link out of the folder of the run is no checkpoint of it, not even to a missing file."""
    run_dir = tmp_path / "run"
    write(run_dir, "000")
    (run_dir / "ckpt" / "epoch-001.ckpt").symlink_to(tmp_path / "elsewhere")
    epochs = read(run_dir)
    assert list(epochs.checkpoints) == [0]
    assert problems_of(epochs) == [
        ("ckpt/epoch-001.ckpt", "is a link that leads out of the folder of the run")
    ]


def test_what_is_no_file_is_a_problem(tmp_path: Path) -> None:
    """Neither a folder nor a pipe is a checkpoint, and nobody waits for it."""
    write(tmp_path, "000")
    (tmp_path / "ckpt" / "epoch-001.ckpt").mkdir()
    os.mkfifo(tmp_path / "ckpt" / "epoch-001.metadata.json")
    epochs = read(tmp_path)
    assert [message for _, message in problems_of(epochs)] == ["is no file", "is no file"]


def test_metadata_of_another_run_are_none(tmp_path: Path) -> None:
    """The epoch has no metadata then, unless they or the run do not tell whose they are."""
    write_epoch(tmp_path / "ckpt/epoch-000.metadata.json", epoch_record(0, run_id="mine"))
    assert list(read(tmp_path, run_id="mine").metadata) == [0]
    assert list(read(tmp_path).metadata) == [0]
    other = read(tmp_path, run_id="other")
    assert (list(other.metadata), len(other.problems)) == ([], 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON: Expecting property name"),
        ("[]", "is no JSON object but a list"),
        ("{}", "epoch is absent"),
        ('{"epoch": 0}', "train_loss is absent"),
    ],
)
def test_metadata_that_are_none_are_a_problem(tmp_path: Path, content: str, message: str) -> None:
    """Such an epoch cannot be judged, and the file is named."""
    write(tmp_path, "000")
    path = tmp_path / "ckpt" / "epoch-000.metadata.json"
    path.write_text(content)
    epochs = read(tmp_path)
    assert epochs.records == ()
    assert any(one.message.startswith(message) for one in epochs.problems)


def test_number_in_the_file_is_that_of_its_name(tmp_path: Path) -> None:
    """The name decides, and that the file tells another number is a problem."""
    write_epoch(tmp_path / "ckpt/epoch-000.metadata.json", epoch_record(1))
    epochs = read(tmp_path)
    assert [one.epoch for one in epochs.records] == [0]
    assert epochs.problems[0].message == "epoch is 1, by the name of the file it is 0"
