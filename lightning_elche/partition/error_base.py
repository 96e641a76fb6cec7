"""What the errors of this package have in common."""

from __future__ import annotations

from dataclasses import fields
from typing import ClassVar

from lightning_elche.exceptions import ElCheError

__all__ = ["PartitionError"]


class PartitionError(ElCheError):
    """Base of the errors of this package.

    One that is raised is a dataclass: its fields are its attributes, and fill in its text. It has
    neither the equality nor the repr of one, since an exception is itself and shows its arguments.
    """

    text: ClassVar[str] = ""

    def __post_init__(self) -> None:
        """Set `args`, so that an error made with keywords can be pickled, too."""
        self.args = tuple(getattr(self, field.name) for field in fields(self))  # type: ignore[arg-type]  # each subclass is a dataclass

    def __str__(self) -> str:
        return self.text.format_map(vars(self)) if self.text else super().__str__()
