"""A controller that corrects an error in proportion to it, to its sum and to its change."""

from __future__ import annotations

__all__ = ["Pid"]

FAR, NEAR = 15.0, 5.0
FAR_GAIN, NEAR_GAIN = 1.5, 0.7
MAX_SUM = 100.0


class Pid:
    """Time counts in control periods, so that gains do not depend on how long one is.

    Far from the target gains are raised, close to it lowered. The output is smoothed. The sum of
    errors is limited, and stands still while the actuator is at the end that the error pushes it
    to: otherwise it would have to be worked off before anything moves again.

    Args:
        kp: Gain of the error.
        ki: Gain of its sum.
        kd: Gain of its change.
        ema: Part of the last output that stays in the next one.

    Example:
        >>> pid = Pid(kp=0.3, ki=0.0, kd=0.0, ema=0.0)
        >>> pid.step(10.0), pid.step(20.0), pid.step(-2.0)
        (3.0, 9.0, -0.42)
    """

    def __init__(self, *, kp: float, ki: float, kd: float, ema: float) -> None:
        self.kp, self.ki, self.kd, self.ema = kp, ki, kd, ema
        self.reset()

    @property
    def components(self) -> tuple[float, float, float]:
        """What error, sum and change contributed to the last step, before gain and smoothing."""
        return self._components

    def reset(self) -> None:
        """Forget the past."""
        self._sum = self._output = 0.0
        self._last: float | None = None
        self._components = (0.0, 0.0, 0.0)

    def step(self, error: float, *, saturated: int = 0) -> float:
        """Return the correction for one period.

        Args:
            error: Target minus measurement.
            saturated: 1 while the actuator is at its upper end, -1 at its lower one, else 0.
        """
        if error * saturated <= 0.0:
            self._sum = min(max(self._sum + error, -MAX_SUM), MAX_SUM)
        change = 0.0 if self._last is None else error - self._last
        self._last = error
        self._components = (self.kp * error, self.ki * self._sum, self.kd * change)
        raw = _gain(abs(error)) * sum(self._components)
        self._output = self.ema * self._output + (1.0 - self.ema) * raw
        return self._output

    def state_dict(self) -> dict[str, float | None]:
        """Return what is remembered."""
        return {"sum": self._sum, "output": self._output, "last": self._last}

    def load_state_dict(self, state: dict[str, float | None]) -> None:
        """Continue from `state`."""
        self._sum, self._output = state["sum"] or 0.0, state["output"] or 0.0
        self._last = state["last"]

    def __repr__(self) -> str:
        parts = ", ".join(f"{part:.3g}" for part in self._components)
        return f"Pid(components=({parts}), output={self._output:.3g})"


def _gain(distance: float) -> float:
    if distance > FAR:
        return FAR_GAIN
    return NEAR_GAIN if distance < NEAR else 1.0
