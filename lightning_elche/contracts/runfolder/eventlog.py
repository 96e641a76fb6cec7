"""The events of a run as they are read back, without those of epochs that were trained again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from lightning_elche.contracts.runfolder.jsonfile import parse_object
from lightning_elche.contracts.runfolder.names import events_name
from lightning_elche.contracts.runfolder.torntail import is_record
from lightning_elche.contracts.steplog.file import Lines, open_regular, read_lines
from lightning_elche.contracts.verdicts import Location

__all__ = ["Event", "EventLog", "current_events", "read_events", "resumed_at"]

# The rest is for people.
JUDGED = frozenset({"ABORT", "CKPT_FAILED", "CYCLE", "RESUME", "RUN_END"})
ENDS = ("ABORT", "RUN_END")


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened in a run.

    Attributes:
        name: Such as "ABORT".
        rank: Whose event it is.
        attempt: In which attempt, from 0.
        epoch: In which epoch, if that is known.
        facts: Everything that the event tells.
        at: Where it stands.
    """

    name: str
    rank: int
    attempt: int
    epoch: int | None
    facts: Mapping[str, object]
    at: Location


@dataclass(frozen=True, kw_only=True)
class EventLog:
    """The event log of one rank.

    Attributes:
        events: Those events that say whether a run is healthy, in the order of the log.
        torn_tail: Where the last line begins, if it was not written to its end.
    """

    events: tuple[Event, ...]
    torn_tail: Location | None = None


def read_events(path: Path, *, rank: int) -> EventLog:
    """Read an event log.

    A last line counts if all that it lacks is its line end.

    Args:
        path: The file.
        rank: Whose events they are.

    Raises:
        OSError: If it cannot be read.
        ValueError: If a line of it is no JSON object; the message says which and why.
    """
    events: list[Event] = []
    torn_tail = None
    with open_regular(path) as file:
        lines = _lines(read_lines(file, size=path.stat().st_size))
        for number, line in enumerate(lines, 1):
            if line.strip() and (line.endswith(b"\n") or is_record(line)):
                events.append(_event(line, number, rank))
            elif line.strip():
                torn_tail = Location(path=events_name(rank), line=number)
    judged = tuple(one for one in events if one.name in JUDGED)
    return EventLog(events=judged, torn_tail=torn_tail)


def current_events(events: Iterable[Event]) -> tuple[Event, ...]:
    """Return the events that still count.

    A resumed run takes back the events of the epochs that it trains again, and every end before.
    """
    everything = tuple(events)
    resumes = [one for one in everything if one.name == "RESUME"]
    return tuple(one for one in everything if not any(_takes_back(by, one) for by in resumes))


def resumed_at(events: Iterable[Event], *, rank: int) -> dict[int, int]:
    """Return the step from which each attempt of a rank went on, as far as that is told."""
    resumes = (one for one in events if one.name == "RESUME" and one.rank == rank)
    steps = ((one.attempt, _integer(one.facts.get("step"))) for one in resumes)
    return {attempt: step for attempt, step in steps if step is not None}


def _takes_back(resume: Event, event: Event) -> bool:
    if event.attempt >= resume.attempt:
        return False
    if event.name in ENDS:
        return True
    first = resume.epoch
    return first is not None and event.epoch is not None and event.epoch >= first


def _lines(blocks: Iterable[Lines]) -> Iterator[bytes]:
    """Yield the lines with their ends; only the last one may lack its own."""
    for block in blocks:
        if block.is_too_long:
            raise ValueError("has a line of more than a mebibyte")
        yield from BytesIO(block.text)


def _event(line: bytes, number: int, rank: int) -> Event:
    try:
        facts = parse_object(line)
    except ValueError as err:
        raise ValueError(f"line {number} {err}") from err
    return Event(
        name=str(facts.get("event")),
        rank=rank,
        attempt=_integer(facts.get("attempt")) or 0,
        epoch=_integer(facts.get("epoch")),
        facts=facts,
        at=Location(path=events_name(rank), line=number),
    )


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
