"""Gates of the user's own: a statistic of a metric within bounds."""

from __future__ import annotations

import math
import statistics
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lightning_elche.contracts.float32 import to_float32
from lightning_elche.contracts.gates.ids import BUILT_IN
from lightning_elche.contracts.gates.sums import CompensatedSum
from lightning_elche.contracts.gates.tally import Tally
from lightning_elche.contracts.model import Contract, ThresholdCheck
from lightning_elche.contracts.strictjson import jsonable
from lightning_elche.contracts.values import read_float, shown
from lightning_elche.contracts.verdicts import GateResult

__all__ = ["Window", "checks_over_epochs", "checks_over_steps"]

ORDER_STATS = ("median", "p95")
P95 = 0.95


def checks_over_steps(contract: Contract) -> Iterator[tuple[str, ThresholdCheck]]:
    """Yield the thresholds on fields of the step log, with the ids of their gates."""
    for gate in contract.gates:
        if gate.check is not None and gate.check.epochs is None and gate.id not in BUILT_IN:
            yield gate.id, gate.check


def checks_over_epochs(contract: Contract) -> Iterator[tuple[str, ThresholdCheck]]:
    """Yield the thresholds on fields of the epoch metadata, with the ids of their gates."""
    for gate in contract.gates:
        if gate.check is not None and gate.check.epochs is not None and gate.id not in BUILT_IN:
            yield gate.id, gate.check


class Window:
    """The values of a metric in a range of steps or epochs, as 32-bit floats.

    Of all statistics but "median" and "p95", it takes constant memory; of these, 4 bytes a value.

    Args:
        check: Metric, statistic, range and bounds.
    """

    def __init__(self, check: ThresholdCheck) -> None:
        self.check = check
        self._range = check.steps or check.epochs
        self._count = 0
        self._absent = 0
        self._low = math.inf
        self._high = -math.inf
        self._last = math.nan
        self._sum = CompensatedSum()
        self._kept = array("f")

    @property
    def count(self) -> int:
        """Number of values."""
        return self._count

    def add(self, index: int, value: float | None) -> None:
        """Add the value of a step or an epoch if the range has it; `None`: it has none."""
        if self._range is not None and not self._range[0] <= index < self._range[1]:
            return
        self._extend([] if value is None else [value])
        self._absent += value is None

    def add_rising(self, indices: Sequence[int], values: Sequence[float] | None) -> None:
        """Add those values of steps in rising order that the range has; `None`: they have none."""
        start, stop = 0, len(indices)
        if self._range is not None:
            start, stop = (bisect_left(indices, bound) for bound in self._range)
        if values is None:
            self._absent += max(stop - start, 0)
        elif start < stop:
            self._extend(values[start:stop])

    def statistic(self) -> float | None:
        """Return the statistic, `None` of no values."""
        if not self._count:
            return None
        if self.check.stat == "median":
            return statistics.median(self._kept)
        if self.check.stat == "p95":
            return sorted(self._kept)[math.ceil(P95 * self._count) - 1]
        mean = self._sum.value / self._count
        return {"min": self._low, "max": self._high, "mean": mean, "last": self._last}[
            self.check.stat
        ]

    def result(self, gate: str) -> GateResult:
        """Return the verdict on the gate of this id, whose check this is."""
        tally = Tally(gate)
        label = f"{self.check.stat} of {self.check.metric}"
        value = self.statistic()
        if not math.isfinite(self._sum.value):
            tally.fail(f"{label} has values that are not finite")
        elif value is None or self._absent:
            tally.doubt(f"{self._count} values of {self.check.metric}, {self._absent} absent")
        else:
            label += f" = {shown(value)} over {self._count} values"
            problem = _out_of_bounds(to_float32(value), self.check)
            if problem is not None:
                tally.fail(f"{label}, {problem}")
        return tally.result(label)

    def _extend(self, values: Sequence[float]) -> None:
        if not values:
            return
        singles = array("f", values)
        self._count += len(singles)
        self._sum.add(sum(singles))
        self._low = min(self._low, min(singles))
        self._high = max(self._high, max(singles))
        self._last = singles[-1]
        if self.check.stat in ORDER_STATS:
            self._kept.extend(singles)

    def state_dict(self) -> dict[str, Any]:
        """Return all of it, as JSON has it."""
        return {
            "count": self._count,
            "absent": self._absent,
            "low": jsonable(self._low),
            "high": jsonable(self._high),
            "last": jsonable(self._last),
            "sum": jsonable(self._sum.state_dict()),
            "kept": jsonable(list(self._kept)),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`."""
        self._count = state["count"]
        self._absent = state["absent"]
        self._low, self._high, self._last = (
            read_float(state[name]) for name in ("low", "high", "last")
        )
        self._sum.load_state_dict(state["sum"])
        self._kept = array("f", map(read_float, state["kept"]))


def _out_of_bounds(value: float, check: ThresholdCheck) -> str | None:
    if check.min is not None and not value >= to_float32(check.min):
        return f"below {shown(check.min)}"
    if check.max is not None and not value <= to_float32(check.max):
        return f"above {shown(check.max)}"
    return None
