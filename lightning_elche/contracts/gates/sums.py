"""Sums that lose nothing of small terms."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from lightning_elche.contracts.values import read_float

__all__ = ["CompensatedSum", "sum_of"]


def sum_of(terms: Collection[float]) -> float:
    """Return the sum, correctly rounded; NaN with infinities of both signs."""
    try:
        return math.fsum(terms)
    except (OverflowError, ValueError):  # beyond the range, or infinities of both signs
        return sum(terms)


class CompensatedSum:
    """A sum that carries the rounding errors of its additions along (Neumaier, 1974)."""

    def __init__(self) -> None:
        self._total = 0.0
        self._lost = 0.0

    @property
    def value(self) -> float:
        """The sum."""
        return self._total + self._lost

    def add(self, term: float) -> None:
        """Add a number."""
        total = self._total + term
        if abs(self._total) >= abs(term):
            self._lost += (self._total - total) + term
        else:
            self._lost += (term - total) + self._total
        self._total = total

    def state_dict(self) -> dict[str, float]:
        """Return the sum and the errors."""
        return {"total": self._total, "lost": self._lost}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Continue from `state`."""
        self._total = read_float(state["total"])
        self._lost = read_float(state["lost"])
