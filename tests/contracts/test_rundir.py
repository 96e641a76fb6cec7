"""The folder of a run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lightning_elche.contracts.runfolder.rundir import RunFolder, RunUnreadable
from tests.contracts.runs import train_healthily


def test_folder_tells_which_files_there_are(tmp_path: Path) -> None:
    """Record, contract and a log per rank are found by their names."""
    folder = RunFolder.open(train_healthily(tmp_path, num_ranks=2))
    assert folder.run is not None
    assert folder.contract == tmp_path / "contract.yaml"
    assert folder.step_logs == {0: tmp_path / "train.jsonl", 1: tmp_path / "train.rank1.jsonl"}


def test_log_that_nobody_has_declared_is_found(tmp_path: Path) -> None:
    """A further rank is judged, too, and files with similar names are none."""
    run_dir = train_healthily(tmp_path)
    for name in ("train.rank3.jsonl", "train.rank03.jsonl", "train.rank0.jsonl", "train.jsonl~"):
        (run_dir / name).touch()
    assert sorted(RunFolder.open(run_dir).step_logs) == [0, 3]


def test_log_is_missing_if_it_was_declared(tmp_path: Path) -> None:
    """Its rank is there without a path."""
    run_dir = train_healthily(tmp_path, num_ranks=2)
    (run_dir / "train.rank1.jsonl").unlink()
    assert RunFolder.open(run_dir).step_logs[1] is None


def test_log_alone_makes_a_run(tmp_path: Path) -> None:
    """Nobody needs to have written a record."""
    (tmp_path / "train.jsonl").touch()
    assert RunFolder.open(tmp_path).run is None


def test_folder_is_refused_if_it_is_none_of_a_run(tmp_path: Path) -> None:
    """Neither is a folder without a record and a log, nor what is no folder."""
    with pytest.raises(RunUnreadable, match=r"must have run.json or train.jsonl, .* has neither"):
        RunFolder.open(tmp_path)
    with pytest.raises(RunUnreadable, match="must be the folder of a run"):
        RunFolder.open(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["run.json", "contract.yaml", "train.jsonl", "events.jsonl"])
def test_link_out_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    """What a run shows for itself lies in its folder, and does not lead a reader elsewhere."""
    run_dir = train_healthily(tmp_path / "run")
    outside = tmp_path / "outside"
    (run_dir / name).rename(outside)
    (run_dir / name).symlink_to(outside)
    with pytest.raises(RunUnreadable, match="is a link that leads out of it"):
        RunFolder.open(run_dir)


def test_link_within_the_folder_is_followed(tmp_path: Path) -> None:
    """It leads to a file of the run."""
    run_dir = train_healthily(tmp_path)
    (run_dir / "run.json").rename(run_dir / "run-3.json")
    (run_dir / "run.json").symlink_to("run-3.json")
    assert RunFolder.open(run_dir).run is not None


@pytest.mark.parametrize("name", ["run.json", "events.jsonl"])
def test_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path, name: str) -> None:
    """Only regular files are opened."""
    run_dir = train_healthily(tmp_path)
    (run_dir / name).unlink()
    os.mkfifo(run_dir / name)
    with pytest.raises(RunUnreadable, match="is a pipe"):
        RunFolder.open(run_dir)


def test_broken_record_is_refused_with_its_path(tmp_path: Path) -> None:
    """The message says which file it is, and what is wrong."""
    run_dir = train_healthily(tmp_path)
    (run_dir / "run.json").write_text("{}")
    with pytest.raises(RunUnreadable, match=r"run.json is no run record: `schema` is missing"):
        RunFolder.open(run_dir)
