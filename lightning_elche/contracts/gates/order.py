"""Which step may come next in a log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lightning_elche.contracts.values import STEP_END

__all__ = ["StepOrder"]


class StepOrder:
    """Sees to it that steps rise and that no multiple of the sampling period is left out.

    Steps between two multiples may be there: a log can be denser than the contract asks for, and
    live, every step is looked at, whichever are logged.

    Args:
        first_step: The first step that is due.
        period: Every so many steps there must be a record.

    Example:
        >>> order = StepOrder(period=10)
        >>> order.take(0)
        >>> [order.accepts(step) for step in (0, 4, 10, 20)]
        [False, True, True, False]
        >>> order.problem(20)
        (10, 'is absent, the next one is 20')
    """

    def __init__(self, first_step: int = 0, *, period: int = 1) -> None:
        self.period = period
        self._next = first_step
        self._unreadable = 0

    @property
    def due(self) -> int:
        """The latest step that may come next."""
        period = self.period
        return -(-self._next // period) * period + self._unreadable * period

    def accepts(self, step: int) -> bool:
        """Return whether a step may come next."""
        return self._next <= step <= self.due

    def problem(self, step: int) -> tuple[int, str] | None:
        """Return which step is amiss if this one comes next, and what is; `None` if none is."""
        if self.accepts(step):
            return None
        if step < self._next:
            return step, f"comes after step {self._next - 1}"
        return self.due, f"is absent, the next one is {step}"

    def take(self, step: int) -> None:
        """Go on after a step, whether it was accepted or not."""
        if step >= self._next:
            self._next = step + 1
            self._unreadable = 0

    def take_unreadable(self) -> None:
        """Go on after a record that does not say which step it is: it may be the one due."""
        self._unreadable += 1

    def accepts_all(self, steps: Sequence[int]) -> bool:
        """Return whether steps may come next, evenly spaced by 1 or by the sampling period.

        False says nothing: other steps may also come.
        """
        first, stride = steps[0], _stride(steps)
        is_even = stride == 1 or (stride == self.period and first % stride == 0)
        if self._unreadable or not is_even or not self.accepts(first) or steps[-1] >= STEP_END:
            return False
        return steps == list(range(first, first + len(steps) * stride, stride))

    def sampled(self, steps: Sequence[int]) -> slice:
        """Return which of these steps, evenly spaced as above, are multiples of the period."""
        if _stride(steps) == self.period:
            return slice(None)
        return slice(-steps[0] % self.period, None, self.period)

    def state_dict(self) -> dict[str, int]:
        """Return where it stands."""
        return {"next": self._next, "unreadable": self._unreadable}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Continue from `state`."""
        self._next = state["next"]
        self._unreadable = state["unreadable"]


def _stride(steps: Sequence[int]) -> int:
    return steps[1] - steps[0] if len(steps) > 1 else 1
