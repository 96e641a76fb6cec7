"""What the steps of an epoch, and the utilization of the GPU in a log, add up to."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import mul
from typing import Any

from lightning_elche.contracts.gates.sums import CompensatedSum, sum_of
from lightning_elche.contracts.strictjson import jsonable
from lightning_elche.contracts.values import read_float

__all__ = ["EpochTotals", "UtilTotals"]

NUM_LAST = 100


@dataclass(slots=True)
class UtilTotals:
    """The values of `gpu_util_pct` in a log.

    Attributes:
        count: How many there are.
        low: The smallest.
        high: The largest.
        total: Their sum.
    """

    count: int = 0
    low: float = math.inf
    high: float = -math.inf
    total: float = 0.0

    @property
    def mean(self) -> float:
        """Their mean; 0 if there are none."""
        return self.total / self.count if self.count else 0.0

    def add(self, count: int, low: float, high: float, total: float) -> None:
        """Add so many values at once."""
        self.count += count
        self.low = min(self.low, low)
        self.high = max(self.high, high)
        self.total += total


@dataclass(slots=True)
class EpochTotals:
    """What the steps of an epoch add up to.

    Attributes:
        steps: Number of records.
        grad_norm_max: Largest gradient norm.
        timed_steps: Number of records that have `wall_ms`.
        wall_ms: Their sum.
        tokens: Sum of `tokens_per_sec * wall_ms / 1000` over these.
    """

    steps: int = 0
    grad_norm_max: float = -math.inf
    timed_steps: int = 0
    wall_ms: float = 0.0
    tokens: float = 0.0
    _loss: CompensatedSum = field(default_factory=CompensatedSum)
    _last: deque[float] = field(default_factory=lambda: deque(maxlen=NUM_LAST))

    @property
    def train_loss(self) -> float:
        """Mean loss; 0 if there are no steps."""
        return self._loss.value / self.steps if self.steps else 0.0

    @property
    def train_loss_last100(self) -> float:
        """Mean loss of the last 100 steps; 0 if there are no steps."""
        return sum_of(self._last) / len(self._last) if self._last else 0.0

    def add(self, losses: Sequence[float], grad_norm_max: float) -> None:
        """Add steps: their losses and their largest gradient norm."""
        self.steps += len(losses)
        self._loss.add(sum(losses))
        self._last.extend(losses[-NUM_LAST:])
        self.grad_norm_max = max(self.grad_norm_max, grad_norm_max)

    def add_times(self, wall_ms: Sequence[float], tokens_per_sec: Sequence[float]) -> None:
        """Add how long steps took, and how fast they were."""
        self.timed_steps += len(wall_ms)
        self.wall_ms += sum(wall_ms)
        self.tokens += sum(map(mul, wall_ms, tokens_per_sec)) / 1000.0

    def state_dict(self) -> dict[str, Any]:
        """Return all of it, as JSON has it."""
        return {
            "steps": self.steps,
            "grad_norm_max": jsonable(self.grad_norm_max),
            "timed_steps": self.timed_steps,
            "wall_ms": self.wall_ms,
            "tokens": self.tokens,
            "loss": self._loss.state_dict(),
            "last": list(self._last),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`."""
        self.steps = state["steps"]
        self.grad_norm_max = read_float(state["grad_norm_max"])
        self.timed_steps = state["timed_steps"]
        self.wall_ms = state["wall_ms"]
        self.tokens = state["tokens"]
        self._loss.load_state_dict(state["loss"])
        self._last = deque(state["last"], maxlen=NUM_LAST)
