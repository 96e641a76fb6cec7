"""The log of a run's steps, read afterwards: one line of JSON per optimizer step."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lightning_elche.contracts.gates import ids as gateids
from lightning_elche.contracts.steplog.attempts import (
    AttemptFilter,
    AttemptSurvey,
    SupersededSteps,
)
from lightning_elche.contracts.steplog.file import UnreadableLog, open_regular
from lightning_elche.contracts.steplog.passes import BulkDecoder, StepReader
from lightning_elche.contracts.steplog.plain import decode_plain
from lightning_elche.contracts.steplog.resumes import may_hold_resumes
from lightning_elche.contracts.steplog.sink import StepSink
from lightning_elche.contracts.verdicts import Finding, Location, Severity

__all__ = [
    "LogSummary",
    "StepSink",
    "SupersededSteps",
    "UnreadableLog",
    "fastest_decoders",
    "open_regular",
    "read_steps",
]

MAX_RANGES = 20


@dataclass(frozen=True, kw_only=True)
class LogSummary:
    """What a step log is like, apart from the values in it.

    Attributes:
        records: Number of records that count.
        attempts: Number of attempts that wrote records.
        superseded: Records that do not count, by attempt.
        torn_tail: Where the last line begins, if it is not complete.
        findings: Notes on all this, and on blank lines and carriage returns.
    """

    records: int
    attempts: int
    superseded: tuple[SupersededSteps, ...]
    torn_tail: Location | None
    findings: tuple[Finding, ...]


def read_steps(
    path: Path,
    sink: StepSink,
    *,
    name: str,
    is_live: bool = False,
    decoders: Sequence[BulkDecoder] | None = None,
    resumed_at: Mapping[int, int] | None = None,
) -> LogSummary:
    """Read a step log, as long as it is now, in constant memory.

    For a step that was done in several attempts only the record of the highest one gets to `sink`.

    Args:
        path: The log.
        sink: Takes in what is read, in the order of the log.
        name: What findings call the log.
        is_live: The run may be going on: the last line may be incomplete.
        decoders: How many clean lines are read at once; `fastest_decoders()` if `None`.
        resumed_at: The step that each attempt went on from, as far as that is known: it may have
            ended before it logged one.

    Raises:
        UnreadableLog: If it is no regular file, or compressed.
        OSError: If it cannot be read.
    """
    decoders = fastest_decoders() if decoders is None else decoders
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        starts = _attempt_starts(file, size, decoders)
        keep = AttemptFilter(sink, _earliest(starts, resumed_at or {}))
        reader = StepReader(keep, name=name, is_live=is_live, decoders=decoders)
        file.seek(0)
        reader.read(file, size=size)
    return LogSummary(
        records=reader.records - sum(one.records for one in keep.superseded),
        attempts=len(starts) or min(reader.records, 1),
        superseded=keep.superseded,
        torn_tail=reader.torn_tail,
        findings=tuple(_notes(reader, keep.superseded, name=name)),
    )


def fastest_decoders() -> tuple[BulkDecoder, ...]:
    """Return what decodes many lines at once, the fastest first; msgspec need not be installed."""
    try:
        from lightning_elche.contracts.steplog.fast import decode_fast
    except ModuleNotFoundError:
        return (decode_plain,)
    return (decode_fast, decode_plain)


def _attempt_starts(file: BinaryIO, size: int, decoders: Sequence[BulkDecoder]) -> dict[int, int]:
    """Return with which step each attempt began; nothing if there was only one."""
    if not may_hold_resumes(file, size=size):
        return {}
    survey = AttemptSurvey()
    file.seek(0)
    StepReader(survey, name="", is_live=True, decoders=decoders).read(file, size=size)
    return survey.starts


def _earliest(one: Mapping[int, int], other: Mapping[int, int]) -> dict[int, int]:
    """Return the smaller step of each attempt that either knows."""
    return {
        attempt: min(steps[attempt] for steps in (one, other) if attempt in steps)
        for attempt in {*one, *other}
    }


def _notes(
    reader: StepReader, superseded: Sequence[SupersededSteps], *, name: str
) -> Iterator[Finding]:
    log = Location(path=name)
    for steps in superseded[:MAX_RANGES]:
        yield _note(
            f"{steps.records} records of attempt {steps.attempt}, steps {steps.first_step} to "
            f"{steps.last_step}, do not count: a later attempt began before them",
            log,
        )
    if len(superseded) > MAX_RANGES:
        yield _note(f"nor do records of {len(superseded) - MAX_RANGES} more attempts", log)
    if reader.blank:
        yield _note(f"{reader.blank} blank lines, this is the first", reader.first_blank)
    if reader.carriage_returns:
        yield _note(f"{reader.carriage_returns} lines end in CR LF", log)
    if reader.torn_tail and reader.is_live:
        yield _note("the last line is not complete yet", reader.torn_tail)


def _note(message: str, at: Location | None) -> Finding:
    return Finding(rule=gateids.METRICS, severity=Severity.NOTE, message=message, at=at)
