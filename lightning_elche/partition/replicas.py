"""Options of the comparison of replicas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lightning_elche.partition.errors import InvalidConfig

__all__ = ["ReplicaConfig"]

ON_DISAGREE = ("raise", "warn", "repair")


@dataclass(frozen=True, kw_only=True)
class ReplicaConfig:
    """Whether it is checked that replicas are equal after an average.

    Args:
        check_every: Check after every n-th averaging event, 0 for never. With other strategies than
            `ElCheStrategy`: at every n-th checkpoint.
        on_disagree: If they are not, "raise", "warn", or "repair": go on with what most ranks have.
    """

    check_every: int = 1
    on_disagree: Literal["raise", "warn", "repair"] = "raise"

    def __post_init__(self) -> None:
        """Validate."""
        if self.check_every < 0:
            raise InvalidConfig(f"`check_every` must be >= 0, got {self.check_every}.")
        if self.on_disagree not in ON_DISAGREE:
            raise InvalidConfig(
                f"`on_disagree` must be one of {ON_DISAGREE}, got {self.on_disagree!r}."
            )
