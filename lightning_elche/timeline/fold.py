"""The steps of a window, folded into one record."""

from __future__ import annotations

from typing import Any

__all__ = ["StepFold"]


class StepFold:
    """Takes the time of each step, and keeps a window's worth of them.

    Per step it costs a few attribute accesses; all else is done when the window is over.

    Args:
        detail_steps: Keep the begin of this many steps of each window.

    Attributes:
        ended_ns: When the last step ended, 0 before the first.
        input_ns: Time spent waiting for data in this window.
        apart_ns: Time in this window that has a record of its own.
    """

    def __init__(self, *, detail_steps: int = 0) -> None:
        self._detail_steps = detail_steps
        self.input_ns = self.apart_ns = self.ended_ns = self._begun_ns = 0
        self._else_before = self._else_within = 0
        self._is_open = False
        self._steps: list[int] = []
        self._details: list[tuple[int, int]] = []

    def begin(self, now_ns: int) -> None:
        """Mark the begin of a step, and so the end of the one before."""
        if self._is_open:
            self._settle()
        self._is_open = True
        self._begun_ns = self.ended_ns = now_ns
        self._else_before, self._else_within = self.input_ns + self.apart_ns, 0

    def end(self, now_ns: int) -> None:
        """Mark that the step is over, or at least its part until now."""
        self.ended_ns = now_ns
        self._else_within = self.input_ns + self.apart_ns - self._else_before

    @property
    def num_steps(self) -> int:
        """Steps since the last `take`."""
        return len(self._steps) + self._is_open

    def take(self) -> dict[str, Any]:
        """Return what the window held, and start a new one."""
        if self._is_open:
            self._settle()
        steps, details, input_ns = sorted(self._steps), self._details, self.input_ns
        self._steps, self._details = [], []
        self.input_ns = self.apart_ns = self._else_before = self._else_within = 0
        window: dict[str, Any] = {
            "batches": len(steps),
            "compute_ns": sum(steps),
            "input_ns": input_ns,
        }
        if steps:
            window["step_ns"] = {
                "min": steps[0],
                "median": steps[len(steps) // 2],
                "p95": steps[len(steps) * 95 // 100],
                "max": steps[-1],
            }
        if self._detail_steps:
            window["steps"] = details
        return window

    def _settle(self) -> None:
        self._is_open = False
        # Such as compiling, or waiting in a model that fetches its batches in its step.
        compute_ns = self.ended_ns - self._begun_ns - self._else_within
        if len(self._details) < self._detail_steps:
            self._details.append((self._begun_ns, compute_ns))
        self._steps.append(compute_ns)
