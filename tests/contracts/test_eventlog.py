"""The events of a run as they are read back."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_elche.contracts.runfolder.eventlog import (
    Event,
    current_events,
    read_events,
    resumed_at,
)
from lightning_elche.contracts.runfolder.runlog import RunLog
from lightning_elche.contracts.verdicts import Location


def event(name: str, attempt: int = 0, epoch: int | None = None, **facts: object) -> Event:
    at = Location(path="events.jsonl")
    return Event(name=name, rank=0, attempt=attempt, epoch=epoch, facts=facts, at=at)


def names_of(*events: Event) -> list[str]:
    return [one.name for one in current_events(events)]


def test_events_are_read_as_they_were_written(tmp_path: Path) -> None:
    """Those that say whether a run is healthy come back, with their place."""
    log = RunLog(tmp_path, rank=2, attempt=1)
    log.event("RUN_START")
    log.event("CKPT_FAILED", epoch=3, reason="full")
    log.close()
    (found,) = read_events(tmp_path / "events.rank2.jsonl", rank=2).events
    assert (found.name, found.rank, found.attempt, found.epoch) == ("CKPT_FAILED", 2, 1, 3)
    assert found.at == Location(path="events.rank2.jsonl", line=2)


@pytest.mark.parametrize(
    "tail", [b'{"event":"AB', b"\x00\x00\x00", b'\x00{"event":"ABORT"}', b"\xff", b"12"]
)
def test_line_that_was_not_written_to_its_end_is_located(tmp_path: Path, tail: bytes) -> None:
    """A killed run may leave one, and a power cut zeros; blank lines do no harm."""
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"event":"ABORT"}\n\n' + tail)
    log = read_events(path, rank=0)
    assert [one.at.line for one in log.events] == [1]
    assert log.torn_tail == Location(path="events.jsonl", line=3)


def test_line_that_lacks_only_its_end_counts(tmp_path: Path) -> None:
    """A resumed run would complete it."""
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"event":"RESUME"}\n{"event":"ABORT"}')
    log = read_events(path, rank=0)
    assert ([one.name for one in log.events], log.torn_tail) == (["RESUME", "ABORT"], None)


def test_white_space_at_the_end_is_no_line(tmp_path: Path) -> None:
    """An editor may leave some."""
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"event":"ABORT"}\n  \r\n ')
    assert read_events(path, rank=0).torn_tail is None


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"event":"ABORT"}\nnonsense\n', "line 2 is no JSON"),
        (b'{"event":"ABORT","event":"RESUME"}\n', "line 1 is no JSON: key 'event' is there twice"),
        (b"{" + b" " * (1 << 20) + b"}\n", "has a line of more than a mebibyte"),
    ],
)
def test_broken_line_is_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    """An abort may be hidden behind it."""
    path = tmp_path / "events.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=problem):
        read_events(path, rank=0)


def test_abort_is_taken_back_by_a_resume() -> None:
    """Only aborts of attempts before it."""
    resume = event("RESUME", attempt=1, epoch=1)
    assert names_of(event("ABORT", attempt=0), resume) == ["RESUME"]
    assert names_of(resume, event("ABORT", attempt=1)) == ["RESUME", "ABORT"]


@pytest.mark.parametrize(("epoch", "counts"), [(0, True), (1, False), (2, False), (None, True)])
def test_events_of_epochs_that_are_trained_again_are_taken_back(
    epoch: int | None, counts: bool
) -> None:
    """Those of epochs before, and those of no epoch, stay."""
    events = current_events(
        [event("CKPT_FAILED", epoch=epoch), event("RESUME", attempt=1, epoch=1)]
    )
    assert len(events) == 1 + counts


def test_step_after_a_resume_is_told_by_the_event() -> None:
    """Of the rank in question, and if it is a number."""
    events = [
        event("RESUME", attempt=1, step=40),
        event("RESUME", attempt=2, step="50"),
        event("ABORT", attempt=3, step=60),
    ]
    assert resumed_at(events, rank=0) == {1: 40}
    assert resumed_at(events, rank=1) == {}
