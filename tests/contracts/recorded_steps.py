"""Step logs in bytes, and a sink that writes down what a reader tells it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_elche.contracts.records import StepColumns
from lightning_elche.contracts.steplog.passes import BulkDecoder
from lightning_elche.contracts.steplog.reading import LogSummary, read_steps
from lightning_elche.contracts.verdicts import Location

FIELDS = ("train_loss", "grad_norm", "lr", "tokens_per_sec", "gpu_util_pct", "wall_ms")
VALUES = ("2.5", "0.5", "1e-05", "900", "40", "12.5")


def line(step: object, /, *, end: str = "\n", **changes: str) -> bytes:
    """Return a line of a log; `changes` are JSON, and an empty one leaves the field out."""
    values = dict(zip(FIELDS, VALUES, strict=True))
    fields = {"step": str(step), **values, "epoch": "0", **changes}
    members = ",".join(f'"{name}":{text}' for name, text in fields.items() if text)
    return f"{{{members}}}{end}".encode()


@dataclass
class RecordedSteps:
    """Writes down records and broken lines.

    Attributes:
        accepts: Which columns it takes in at once.
        needs_mappings: As a sink has it.
        records: Records in the order they came.
        places: Where those that came one by one stand.
        broken_lines: Reason and place of lines that hold no record.
        in_bulk: Number of records that came in columns.
    """

    accepts: Callable[[StepColumns], bool] = lambda _: True
    needs_mappings: bool = False
    records: list[dict[str, Any]] = field(default_factory=list)
    places: list[Location] = field(default_factory=list)
    broken_lines: list[tuple[str, Location]] = field(default_factory=list)
    in_bulk: int = 0

    def columns(self, columns: StepColumns, /) -> bool:
        if not self.accepts(columns):
            return False
        lists = {name: getattr(columns, name) for name in StepColumns.__slots__}
        given = {name: values for name, values in lists.items() if values is not None}
        self.records += [
            dict(zip(given, row, strict=True)) for row in zip(*given.values(), strict=True)
        ]
        self.in_bulk += len(columns.step)
        return True

    def step(self, record: Mapping[str, object], at: Location, /) -> None:
        self.records.append(dict(record))
        self.places.append(at)

    def broken(self, reason: str, at: Location, /) -> None:
        self.broken_lines.append((reason, at))

    @property
    def steps(self) -> list[object]:
        """The steps of all records."""
        return [record.get("step") for record in self.records]

    @property
    def reasons(self) -> list[str]:
        """Why lines are broken."""
        return [reason for reason, _ in self.broken_lines]


def record_steps(
    path: Path,
    text: bytes,
    *,
    is_live: bool = False,
    decoders: tuple[BulkDecoder, ...] | None = None,
    sink: RecordedSteps | None = None,
) -> tuple[RecordedSteps, LogSummary]:
    """Write a log, read it, and return what the reader told and returned."""
    path.write_bytes(text)
    sink = RecordedSteps() if sink is None else sink
    return sink, read_steps(path, sink, name="train.jsonl", is_live=is_live, decoders=decoders)
