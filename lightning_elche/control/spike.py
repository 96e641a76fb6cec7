"""When the loss of a batch says that something has gone wrong."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["SpikeConfig", "SpikeDetector"]


@dataclass(frozen=True, kw_only=True)
class SpikeConfig:
    """What a bad batch looks like.

    Args:
        monitor: Key of what `training_step` returns whose value is judged.
        factor: A value is a spike if it exceeds this multiple of the average, above 1.
        ema: Weight of the past in the moving average, from 0 to below 1.
        warmup_steps: Healthy values before spikes are looked for; what is not finite is bad anyway.
        floor: The average counts as at least this large, so that a loss near 0 may vary.
        check_every: Batches that are judged at once, by their maximum. One read from the device.

    Example:
        >>> SpikeConfig(factor=4.0, warmup_steps=50).check_every
        1
    """

    monitor: str = "loss"
    factor: float = 3.0
    ema: float = 0.9
    warmup_steps: int = 5
    floor: float = 1e-3
    check_every: int = 1

    def __post_init__(self) -> None:
        """Validate."""
        if not self.monitor:
            raise ValueError("`monitor` must be a key of what `training_step` returns, got ''.")
        if not 1.0 < self.factor < math.inf:
            raise ValueError(f"`factor` must be a number > 1, got {self.factor}.")
        if not 0.0 <= self.ema < 1.0:
            raise ValueError(f"`ema` must be in [0, 1), got {self.ema}.")
        if self.warmup_steps < 1:
            raise ValueError(f"`warmup_steps` must be >= 1, got {self.warmup_steps}.")
        if not 0.0 < self.floor < math.inf:
            raise ValueError(f"`floor` must be a number > 0, got {self.floor}.")
        if self.check_every < 1:
            raise ValueError(f"`check_every` must be >= 1, got {self.check_every}.")


class SpikeDetector:
    """Compares each value with an exponential moving average of the healthy ones before it.

    A value `x` is bad if it is not finite, or if there were `warmup_steps` healthy ones and
    `x - m > (factor - 1) * max(|m|, floor)`, which is `x > factor * m` for an average `m` above
    `floor`. A bad value never moves the average.

    Args:
        config: What a bad value is.

    Example:
        >>> detector = SpikeDetector(SpikeConfig(warmup_steps=2))
        >>> [detector.is_bad(value) for value in (1.0, 1.0, 3.0, 4.0, float("nan"))]
        [False, False, False, True, True]
    """

    def __init__(self, config: SpikeConfig | None = None) -> None:
        self.config = config or SpikeConfig()
        self.reset()

    def reset(self) -> None:
        """Forget all values."""
        self.mean = 0.0
        self.num_healthy = 0

    def is_bad(self, value: float) -> bool:
        """Take in a value and return whether it is bad."""
        if not math.isfinite(value) or self._is_spike(value):
            return True
        ema = self.config.ema if self.num_healthy else 0.0
        self.mean = ema * self.mean + (1.0 - ema) * value
        self.num_healthy += 1
        return False

    def _is_spike(self, value: float) -> bool:
        config = self.config
        if self.num_healthy < config.warmup_steps:
            return False
        return value - self.mean > (config.factor - 1.0) * max(abs(self.mean), config.floor)

    def state_dict(self) -> dict[str, float]:
        """Return what is remembered."""
        return {"mean": self.mean, "num_healthy": self.num_healthy}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Continue from `state`."""
        self.mean = state["mean"]
        self.num_healthy = int(state["num_healthy"])

    def __repr__(self) -> str:
        return f"SpikeDetector(mean={self.mean:.6g}, num_healthy={self.num_healthy})"
