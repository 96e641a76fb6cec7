"""Logs are read back, whatever has become of the ranks."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_elche.timeline.aligned import load
from lightning_elche.timeline.reader import NoEvents, read_run
from tests.timeline.recorded import Clock, S, Share, open_log, record_run, record_second


def log_file(folder: Path, rank: int) -> Path:
    return folder / "elche" / "events" / f"rank{rank}.jsonl"


@pytest.mark.parametrize("place", ["", "elche", "elche/events"])
def test_run_is_found_from_each_of_its_folders(tmp_path: Path, place: str) -> None:
    """The folder of the run, the one in it, and that of the logs will do."""
    record_run(tmp_path)
    assert [log.rank for log in read_run(tmp_path / place)] == [0, 1]


def test_folder_without_events_is_refused(tmp_path: Path) -> None:
    """The message says how to get some."""
    with pytest.raises(NoEvents, match="`RUN` must be the folder of a run with event logs"):
        read_run(tmp_path / "missing")


def test_log_of_a_rank_that_ended_at_once_is_as_none(tmp_path: Path) -> None:
    """A header says nothing of what happened."""
    record_run(tmp_path)
    for rank in (1, 0):
        path = log_file(tmp_path, rank)
        path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
        if rank:
            assert load(tmp_path).missing == [1]
    with pytest.raises(NoEvents, match="ranks have ended at once"):
        read_run(tmp_path)


def test_line_that_was_cut_is_counted_and_left_out(tmp_path: Path) -> None:
    """All others are read."""
    record_run(tmp_path)
    whole = len(list(read_run(tmp_path)[1].records()))
    path = log_file(tmp_path, 1)
    path.write_bytes(path.read_bytes()[:-7])
    log = read_run(tmp_path)[1]
    assert len(list(log.records())) == whole - 1
    assert (log.num_cut, log.is_closed) == (1, False)


def test_rank_that_was_killed_is_told(tmp_path: Path) -> None:
    """Its log breaks off before that of the other one."""
    record_run(tmp_path)
    path = log_file(tmp_path, 1)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:10]) + lines[10][:20])
    notes = load(tmp_path).notes
    assert notes == [
        "Rank 1 was lost: its log breaks off 4.0 s before the last one.",
        "Rank 1: 1 lines of its log could not be read.",
    ]


def test_rank_without_a_log_is_told(tmp_path: Path) -> None:
    """Those that have one know how many there are."""
    record_run(tmp_path)
    log_file(tmp_path, 1).unlink()
    timeline = load(tmp_path)
    assert timeline.missing == [1]
    assert timeline.notes[0].startswith("There is no event log of rank 1")


def test_last_run_of_a_folder_is_read(tmp_path: Path) -> None:
    """A rank that took part only in an earlier one does not count."""
    record_run(tmp_path, run="old")
    clock = Clock(100 * S)
    log = open_log(tmp_path, 0, 1, clock, run="new")
    record_second(log, clock, 0, Share())
    log.close()
    assert [(found.rank, found.header["run"]) for found in read_run(tmp_path)] == [(0, "new")]


def test_log_in_several_files_is_one(tmp_path: Path) -> None:
    """The oldest first, by number."""
    record_run(tmp_path)
    whole = [record.t_ns for record in read_run(tmp_path)[0].records()]
    path = log_file(tmp_path, 0)
    lines = path.read_bytes().splitlines(keepends=True)
    for number in (2, 10):
        path.with_name(f"{path.name}.{number}").write_bytes(b"".join((lines[0], lines[number])))
    path.write_bytes(b"".join((lines[0], *lines[11:])))
    assert [r.t_ns for r in read_run(tmp_path)[0].records()] == [whole[1], whole[9], *whole[10:]]


def test_log_of_another_version_is_refused(tmp_path: Path) -> None:
    """The message names the version."""
    record_run(tmp_path)
    path = log_file(tmp_path, 0)
    path.write_bytes(path.read_bytes().replace(b"event-v1", b"event-v9"))
    with pytest.raises(ValueError, match=r"`schema` of .* must be 'event-v1', got 'event-v9'"):
        read_run(tmp_path)
