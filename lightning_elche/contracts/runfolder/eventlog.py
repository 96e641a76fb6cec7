"""The events of a run as they are read back, without those of epochs that were trained again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lightning_elche.contracts.runfolder.jsonfile import parse_object
from lightning_elche.contracts.runfolder.names import events_name
from lightning_elche.contracts.steplog.file import Lines, open_regular, read_lines
from lightning_elche.contracts.verdicts import Location

__all__ = ["Event", "current_events", "read_events", "resumed_at"]

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


def read_events(path: Path, *, rank: int) -> tuple[Event, ...]:
    """Read those events that say whether a run is healthy.

    A last line that was not written to its end is passed over, because an event counts when its
    line is complete.

    Args:
        path: The file.
        rank: Whose events they are.

    Raises:
        OSError: If it cannot be read.
        ValueError: If a line of it is no JSON object; the message says which and why.
    """
    with open_regular(path) as file:
        events = [
            _event(line, number, rank)
            for number, line in enumerate(_lines(read_lines(file, size=path.stat().st_size)), 1)
            if line.strip()
        ]
    return tuple(one for one in events if one.name in JUDGED)


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
    for block in blocks:
        if block.is_too_long:
            raise ValueError("has a line of more than a mebibyte")
        lines = block.text.split(b"\n")
        # What stands behind the last line end has not been written to its end.
        yield from lines[:-1]


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
