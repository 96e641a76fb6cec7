"""The first steps of a log with the lines they stand on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_elche.contracts.gates.steps import SIX_FIELDS
from lightning_elche.contracts.records import StepColumns, StepRecord
from lightning_elche.contracts.steplog.file import MAX_LINE_BYTES, open_regular
from lightning_elche.contracts.steplog.reading import read_steps
from lightning_elche.contracts.strictjson import number_of
from lightning_elche.contracts.values import type_problem
from lightning_elche.contracts.verdicts import Location

__all__ = ["LoggedStep", "iter_steps"]

NUMBERS = (*(spec.name for spec in SIX_FIELDS if spec.type == "f32"), "wall_ms")
INTEGERS = ("step", "epoch", "attempt")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedStep(StepRecord):
    """A step and its line.

    Attributes:
        at: Where it stands.
        text: The line, without its end.
    """

    at: Location
    text: str


def iter_steps(path: Path, *, limit: int, name: str | None = None) -> Iterator[LoggedStep]:
    """Yield the steps below `limit` in the order of the log; later attempts may be anywhere in it.

    What is no record, or lacks a field or has one of a wrong type, is passed over: `read_steps`
    reports it.

    Args:
        path: The log.
        limit: The first step that is not asked for.
        name: What places call the log; its file name if `None`.

    Raises:
        UnreadableLog: If it is no regular file, or compressed.
        OSError: If it cannot be read.
    """
    first = _FirstSteps(limit)
    read_steps(path, first, name=path.name if name is None else name)
    with open_regular(path) as file:
        for fields, at in first.found.values():
            file.seek(at.offset or 0)
            line = file.readline(MAX_LINE_BYTES + 1)
            yield LoggedStep(**fields, at=at, text=line.rstrip(b"\r\n").decode("utf-8", "replace"))


class _FirstSteps:
    """Keeps the first record of each step below a limit."""

    needs_mappings = False

    def __init__(self, limit: int) -> None:
        self.found: dict[int, tuple[dict[str, Any], Location]] = {}
        self._limit = limit

    def columns(self, columns: StepColumns, /) -> bool:
        return min(columns.step) >= self._limit

    def step(self, record: Mapping[str, object], at: Location, /) -> None:
        step = record.get("step")
        if any(type_problem(record.get(spec.name), spec.type) for spec in SIX_FIELDS):
            return
        if isinstance(step, int) and step < self._limit and step not in self.found:
            self.found[step] = (_fields(record), at)

    def broken(self, reason: str, at: Location, /) -> None:
        pass


def _fields(record: Mapping[str, object]) -> dict[str, Any]:
    """Return the fields of a `StepRecord`, of the optional ones those that are numbers."""
    numbers = {name: number_of(record.get(name)) for name in NUMBERS}
    integers = {name: record.get(name) for name in INTEGERS}
    return {name: value for name, value in numbers.items() if value is not None} | {
        name: value for name, value in integers.items() if type(value) is int
    }
