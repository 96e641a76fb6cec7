"""What a callback has saved so far."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

__all__ = ["SaveCounts"]


@dataclass(kw_only=True)
class SaveCounts:
    """What was saved so far.

    Attributes:
        points: Points at which a checkpoint could be saved.
        rows: Rows that were written.
        nbytes: Bytes of the last checkpoint.
        num_rows: Its rows.
        partitions: Its partitions.
        seconds: How long each checkpoint took, from the copy to its place.
    """

    points: int = 0
    rows: int = 0
    nbytes: int = 0
    num_rows: int = 0
    partitions: int = 0
    seconds: list[float] = field(default_factory=list)

    @property
    def p95_s(self) -> float:
        """Seconds that 95 % of the checkpoints took at most."""
        if len(self.seconds) < 2:
            return self.seconds[0] if self.seconds else 0.0
        return statistics.quantiles(self.seconds, n=20, method="inclusive")[-1]
