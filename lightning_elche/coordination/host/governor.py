"""Leaves a machine to others, as far as they need it: less work while it is too busy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lightning_elche.coordination.host.pid import Pid
from lightning_elche.coordination.host.targets import TargetConfig

__all__ = ["Duty", "Governor", "GovernorConfig"]

SIGNALS = ("gpu", "cpu", "temperature", "power")
MAX_SLEEP_S = 1.0
MAX_OWED_S = 10.0
# A task that others have pressed out of these must not ask for less: it would stay pressed out.
SHARED = ("gpu", "cpu")
HEADROOM = 1.25


@dataclass(frozen=True, kw_only=True)
class GovernorConfig:
    """How a rank gives way to what else runs on its machine.

    Args:
        enabled: Whether it does. Off, no step ever sleeps.
        signal: What is steered to `optimal_pct` of the targets: the utilization of the rank's "gpu"
            or of the "cpu", or the "temperature" or "power" of the GPU in percent of its limit.
        kp: Gain of the error, per control period.
        ki: Gain of its sum.
        kd: Gain of its change.
        period_s: Seconds between two looks at the signal.
        ema: Part of the last output that stays in the next one, against jitter.
        duty_min: Part of the time that is left for training in any case.
    """

    enabled: bool = False
    signal: Literal["gpu", "cpu", "temperature", "power"] = "gpu"
    kp: float = 0.3
    ki: float = 0.01
    kd: float = 0.0
    period_s: float = 1.0
    ema: float = 0.3
    duty_min: float = 0.05

    def __post_init__(self) -> None:
        """Validate."""
        if self.signal not in SIGNALS:
            raise ValueError(f"`signal` must be one of {SIGNALS}, got {self.signal!r}.")
        for name in ("kp", "ki", "kd"):
            if not getattr(self, name) >= 0.0:
                raise ValueError(f"`{name}` must be >= 0, got {getattr(self, name)}.")
        if not self.period_s > 0.0:
            raise ValueError(f"`period_s` must be > 0, got {self.period_s}.")
        if not 0.0 <= self.ema < 1.0:
            raise ValueError(f"`ema` must be in [0, 1), got {self.ema}.")
        if not 0.0 < self.duty_min <= 1.0:
            raise ValueError(f"`duty_min` must be in (0, 1], got {self.duty_min}.")


class Governor:
    """Sets the part of the time that a rank works, so that a signal meets its target.

    How many batches a rank gets is not touched: the cadence follows from the speed that is left.

    Args:
        config: Gains and limits.
        targets: Where the signal should be.

    Attributes:
        limit: The most that `duty` may be, but never less than `duty_min`; `None` for no limit. Any
            thread may set it.

    Example:
        >>> governor = Governor()
        >>> round(governor.update(100.0), 3), round(governor.update(100.0), 3)
        (0.902, 0.772)
    """

    def __init__(
        self, config: GovernorConfig | None = None, targets: TargetConfig | None = None
    ) -> None:
        self.config = config or GovernorConfig()
        self.targets = targets or TargetConfig()
        own = self.config
        self._pid = Pid(kp=own.kp, ki=own.ki, kd=own.kd, ema=own.ema)
        self._steered = 1.0
        self.limit: float | None = None

    @property
    def duty(self) -> float:
        """Part of the time for work, `duty_min` to 1."""
        return min(self._steered, self._most)

    @property
    def requested(self) -> float:
        """The part of the time to ask for, where several tasks split it.

        All of it, since training can use it; but a quarter more than it takes where heat or power
        hold it back, not `limit`: what it cannot use is for others.
        """
        if self.config.signal in SHARED or self._steered >= self._most:
            return 1.0
        return min(HEADROOM * self._steered, 1.0)

    @property
    def _most(self) -> float:
        limit = self.limit
        return 1.0 if limit is None else min(max(limit, self.config.duty_min), 1.0)

    @property
    def components(self) -> tuple[float, float, float]:
        """What error, sum and change contributed to the last update."""
        return self._pid.components

    def update(self, percent: float) -> float:
        """Take in the signal, once in every control period, and return the duty."""
        low, high, duty = self.config.duty_min, self._most, self.duty
        saturated = int(duty >= high) - int(duty <= low)
        change = self._pid.step(self.targets.optimal_pct - percent, saturated=saturated)
        self._steered = min(max(duty + change / 100.0, low), high)
        return self.duty

    def action(self, percent: float) -> Literal["scale_up", "hold", "scale_down"]:
        """Return what should be done about the number of jobs on the machine."""
        if percent < self.targets.scale_up_below_pct:
            return "scale_up"
        return "scale_down" if percent > self.targets.scale_down_above_pct else "hold"

    def reset(self) -> None:
        """Work as much as `limit` allows, and forget the past."""
        self._pid.reset()
        self._steered = 1.0

    def state_dict(self) -> dict[str, float | None]:
        """Return duty and what the controller remembers."""
        return {"duty": self.duty, **self._pid.state_dict()}

    def load_state_dict(self, state: dict[str, float | None]) -> None:
        """Continue from `state`."""
        self._steered = state["duty"] or 1.0
        self._pid.load_state_dict(state)

    def __repr__(self) -> str:
        return f"Governor(duty={self.duty:.3g}, {self._pid})"


class Duty:
    """Turns a duty into sleeps between steps.

    A sleep is at most a second, so that nobody waits long for this rank; what is left is owed and
    slept after later steps, up to ten seconds of it. Nothing is owed any more at full duty.

    Example:
        >>> duty = Duty()
        >>> duty.sleep_s(0.1, 0.5), duty.sleep_s(3.0, 0.5), duty.sleep_s(0.1, 0.5)
        (0.1, 1.0, 1.0)
        >>> duty.sleep_s(0.1, 1.0)
        0.0
    """

    def __init__(self) -> None:
        self._owed_s = 0.0

    def sleep_s(self, step_s: float, duty: float) -> float:
        """Return how long to sleep now.

        Args:
            step_s: Time of the step that is over, without sleeps.
            duty: Part of the time for work.
        """
        if duty >= 1.0:
            self._owed_s = 0.0
            return 0.0
        owed = self._owed_s + step_s * (1.0 / duty - 1.0)
        sleep = min(owed, MAX_SLEEP_S)
        self._owed_s = min(owed - sleep, MAX_OWED_S)
        return sleep
