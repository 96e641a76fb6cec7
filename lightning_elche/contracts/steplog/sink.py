"""What a reader of a step log feeds: whoever judges it, counts it or picks from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from lightning_elche.contracts.records import StepColumns
from lightning_elche.contracts.verdicts import Location

__all__ = ["StepSink"]


class StepSink(Protocol):
    """Takes in the lines of a log in their order."""

    @property
    def needs_mappings(self) -> bool:
        """Whether it wants all fields of every record, also those that `StepColumns` lacks."""
        ...

    def columns(self, columns: StepColumns, /) -> bool:
        """Take in many records, or return False and change nothing: then they come one by one."""
        ...

    def step(self, record: Mapping[str, object], at: Location, /) -> object:
        """Take in a record; its fields may be absent and of any type."""
        ...

    def broken(self, reason: str, at: Location, /) -> None:
        """Take in a line that holds no record."""
        ...
