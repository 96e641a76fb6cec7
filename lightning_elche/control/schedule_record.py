"""What a run of several ranks owes to the clock: who got which batches, and when ranks met."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from lightning_elche.control.reports import Report
from lightning_elche.exceptions import ScheduleDiverged

__all__ = [
    "RecordedEvent",
    "ScheduleRecord",
    "deal_line",
    "event_line",
    "header_line",
    "merged",
    "parse_record",
]

Result = TypeVar("Result")

FORMAT = "elche-schedule-1"
# What a report says that follows from the batches alone, so that it comes again.
REPEATED = (
    "epoch",
    "batches",
    "ahead_batches",
    "optimizer_steps",
    "samples",
    "ahead_samples",
    "weight",
    "loss_sum",
    "loss_count",
    "relative_delta",
    "optimizer_layout",
    "sits_out",
)
# Those of them that are numbers of the model: a run that has others can go on by the record.
NUMERIC = ("loss_sum", "relative_delta")
# What is heard of the run that goes on now.
PRESENT = ("stop", "gate_abort", "restorable_event")


@dataclass(frozen=True, kw_only=True)
class RecordedEvent:
    """One averaging event, as a rank has recorded it.

    Attributes:
        index: Number of the event.
        applied_after: Batches that this rank had trained in the window when it took the average.
        reports: The reports of all ranks.
    """

    index: int
    applied_after: int
    reports: tuple[Report, ...]


@dataclass(kw_only=True)
class ScheduleRecord:
    """The part of one rank.

    Attributes:
        rank: The rank.
        world_size: Number of ranks.
        batches: The batches that it was dealt, in order and each once, by epoch. One that was dealt
            and not trained when its epoch was cut short is dealt again, as it was then.
        num_ahead: How many of the next epoch it was dealt in each epoch.
        events: The averaging events, by index.
    """

    rank: int
    world_size: int
    batches: dict[int, dict[int, None]] = field(default_factory=dict)
    num_ahead: Counter[int] = field(default_factory=Counter)
    events: dict[int, RecordedEvent] = field(default_factory=dict)


def header_line(*, rank: int, world_size: int) -> str:
    """Return the first line of the record of a rank."""
    return json.dumps({"format": FORMAT, "rank": rank, "world_size": world_size})


def deal_line(present: int, epoch: int, index: int) -> str:
    """Return the line that says that a batch of `epoch` was dealt in the epoch `present`."""
    return json.dumps({"deal": [present, epoch, index]})


def event_line(event: RecordedEvent) -> str:
    """Return the line of an averaging event; floats in hexadecimal, so that no bit is lost."""
    reports = [[number.hex() for number in own.to_vector()] for own in event.reports]
    return json.dumps(
        {"event": event.index, "applied_after": event.applied_after, "reports": reports}
    )


def parse_record(lines: Iterable[str]) -> ScheduleRecord:
    """Return the record that is made of these lines; one that was cut off ends with what it has.

    Raises:
        ValueError: If a line is none; the message says which.
    """
    # A line without its end was not written to it: its writer was killed.
    first, *others = [line for line in lines if line.endswith("\n")] or [""]
    record = _read(1, first, _begun)
    for number, line in enumerate(others, 2):
        _read(number, line, partial(_add, record))
    return record


def _read(number: int, line: str, take: Callable[[Mapping[str, Any]], Result]) -> Result:
    try:
        return take(json.loads(line))
    except (KeyError, TypeError, ValueError) as err:
        raise ValueError(f"line {number} is no line of a schedule: {err!r}") from err


def _begun(told: Mapping[str, Any]) -> ScheduleRecord:
    if told["format"] != FORMAT:
        raise ValueError(f"`format` must be {FORMAT}, got {told['format']!r}")
    return ScheduleRecord(rank=int(told["rank"]), world_size=int(told["world_size"]))


def _add(record: ScheduleRecord, told: Mapping[str, Any]) -> None:
    if "deal" in told:
        present, epoch, index = map(int, told["deal"])
        record.batches.setdefault(epoch, {})[index] = None
        record.num_ahead[present] += epoch != present
        return
    reports = tuple(Report.from_vector(list(map(float.fromhex, own))) for own in told["reports"])
    event = RecordedEvent(
        index=int(told["event"]), applied_after=int(told["applied_after"]), reports=reports
    )
    record.events[event.index] = event


def merged(
    recorded: RecordedEvent,
    reports: Iterable[Report],
    *,
    on_difference: Callable[[ScheduleDiverged], object] | None = None,
) -> list[Report]:
    """Return the recorded reports of an event, with what must be heard of the present run.

    Args:
        recorded: The event.
        reports: Those of all ranks now.
        on_difference: Is told of other numbers of the model, which are not raised then.

    Raises:
        ScheduleDiverged: If a rank has not trained what it had; names the first one.
    """
    both = []
    for rank, (then, now) in enumerate(zip(recorded.reports, reports, strict=True)):
        for name in REPEATED:
            expected, actual = getattr(then, name), getattr(now, name)
            if _is_same(expected, actual):
                continue
            found = ScheduleDiverged(recorded.index, rank, name, expected, actual)
            if on_difference is None or name not in NUMERIC:
                raise found
            on_difference(found)
        present = {name: getattr(now, name) for name in PRESENT}
        should_stop = then.should_stop or now.should_stop
        both.append(replace(then, **present, should_stop=should_stop))
    return both


def _is_same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))
