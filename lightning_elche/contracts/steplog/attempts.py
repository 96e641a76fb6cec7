"""Steps that were done again after a resume: for each step the highest attempt counts."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import accumulate

from lightning_elche.contracts.records import StepColumns
from lightning_elche.contracts.steplog.sink import StepSink
from lightning_elche.contracts.verdicts import Location

__all__ = ["AttemptFilter", "AttemptSurvey", "SupersededSteps"]


@dataclass(frozen=True, kw_only=True)
class SupersededSteps:
    """Records of one attempt that a later attempt has taken back.

    Attributes:
        attempt: The attempt.
        first_step: Its first step that does not count.
        last_step: Its last one.
        records: Number of these records.
    """

    attempt: int
    first_step: int
    last_step: int
    records: int


class AttemptSurvey:
    """Finds out with which step each attempt began; keeps a number per attempt.

    Attributes:
        starts: The smallest step of each attempt.
    """

    needs_mappings = False

    def __init__(self) -> None:
        self.starts: dict[int, int] = {}
        self._course = _Course()

    def columns(self, columns: StepColumns, /) -> bool:
        """Take in records of one attempt."""
        attempt = self._course.attempt_of_all(columns)
        if attempt is None:
            return False
        self._note(attempt, min(columns.step), columns.step[-1])
        return True

    def step(self, record: Mapping[str, object], _at: Location, /) -> None:
        """Take in a record."""
        step = _integer(record.get("step"))
        if step is not None:
            self._note(self._course.attempt_of(record, step), step, step)

    def broken(self, _reason: str, _at: Location, /) -> None:
        """Pass over a line: it does not say which step it is."""

    def _note(self, attempt: int, first: int, last: int) -> None:
        self.starts[attempt] = min(self.starts.get(attempt, first), first)
        self._course.go_on(attempt, last)


class AttemptFilter:
    """Passes on the records that count.

    An attempt takes back all that earlier ones did from its first step on, also what it did not
    get to again: those steps led to weights that were given up.

    Args:
        sink: Where they go.
        starts: The smallest step of each attempt.
    """

    def __init__(self, sink: StepSink, starts: Mapping[int, int]) -> None:
        self._sink = sink
        self._course = _Course()
        self._dropped: dict[int, SupersededSteps] = {}
        self._attempts = sorted(starts)
        steps = [starts[attempt] for attempt in reversed(self._attempts)]
        self._limits = [math.inf, *accumulate(steps, min)][::-1]

    @property
    def needs_mappings(self) -> bool:
        """What the sink says."""
        return self._sink.needs_mappings

    @property
    def superseded(self) -> tuple[SupersededSteps, ...]:
        """What does not count, by attempt."""
        return tuple(self._dropped[attempt] for attempt in sorted(self._dropped))

    def columns(self, columns: StepColumns, /) -> bool:
        """Take in records of one attempt that all count, or do not."""
        if not self._attempts:
            return self._sink.columns(columns)
        attempt = self._course.attempt_of_all(columns)
        if attempt is None:
            return False
        first, last, limit = min(columns.step), max(columns.step), self._limit(attempt)
        if first < limit <= last or (last < limit and not self._sink.columns(columns)):
            return False
        if first >= limit:
            self._drop(attempt, first, last, len(columns.step))
        self._course.go_on(attempt, columns.step[-1])
        return True

    def step(self, record: Mapping[str, object], at: Location, /) -> None:
        """Take in a record."""
        step = _integer(record.get("step"))
        if step is None:
            self._sink.step(record, at)
            return
        attempt = self._course.attempt_of(record, step)
        self._course.go_on(attempt, step)
        if step < self._limit(attempt):
            self._sink.step(record, at)
        else:
            self._drop(attempt, step, step, 1)

    def broken(self, reason: str, at: Location, /) -> None:
        """Pass a line on: nobody knows which step it was."""
        self._sink.broken(reason, at)

    def _limit(self, attempt: int) -> float:
        """Return the first step that a later attempt has taken back."""
        return self._limits[bisect_right(self._attempts, attempt)]

    def _drop(self, attempt: int, first: int, last: int, records: int) -> None:
        before = self._dropped.get(attempt)
        if before is None:
            before = SupersededSteps(attempt=attempt, first_step=first, last_step=last, records=0)
        self._dropped[attempt] = replace(
            before,
            first_step=min(before.first_step, first),
            last_step=max(before.last_step, last),
            records=before.records + records,
        )


class _Course:
    """Tells which attempt a record belongs to; without its word, a step back begins a new one."""

    def __init__(self) -> None:
        self._attempt = 0
        self._step: float = -math.inf

    def attempt_of(self, record: Mapping[str, object], step: int) -> int:
        attempt = _integer(record.get("attempt"))
        return self._attempt + (step < self._step) if attempt is None else attempt

    def attempt_of_all(self, columns: StepColumns) -> int | None:
        """Return the attempt of records that come next, `None` if they may be of several."""
        steps, attempts = columns.step, columns.attempt
        if attempts is not None:
            return attempts[0] if attempts.count(attempts[0]) == len(attempts) else None
        return self._attempt + (steps[0] < self._step) if steps == sorted(steps) else None

    def go_on(self, attempt: int, step: int) -> None:
        self._attempt = attempt
        self._step = step


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
