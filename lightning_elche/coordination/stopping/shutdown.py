"""What is done, in order, when a run stops: all of it within one total of time."""

from __future__ import annotations

import enum
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

__all__ = ["PRIORITIES", "ShutdownPlan", "ShutdownResult", "StepOutcome"]

log = logging.getLogger(__name__)

PRIORITIES = MappingProxyType(
    {
        "stop intake": 10,
        "closing average": 20,
        "checkpoint": 30,
        "drain uploads": 40,
        "flush": 50,
        "release": 60,
    }
)


class StepOutcome(enum.Enum):
    """What became of a step."""

    DONE = "done"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    SKIPPED = "skipped"


@dataclass(frozen=True, kw_only=True)
class ShutdownResult:
    """What became of all steps.

    Attributes:
        outcomes: By name of the step, in the order in which they were taken.
        errors: What the steps have raised that have failed, by name.
        seconds: What each step took.
    """

    outcomes: Mapping[str, StepOutcome]
    errors: Mapping[str, BaseException]
    seconds: Mapping[str, float]

    def to_dict(self) -> dict[str, str]:
        """Return the outcomes as a JSON-serialisable mapping."""
        return {name: outcome.value for name, outcome in self.outcomes.items()}


@dataclass(frozen=True, kw_only=True)
class _Step:
    name: str
    run: Callable[[], object]
    priority: int
    timeout_s: float
    reserve_s: float
    is_on_main: bool


class ShutdownPlan:
    """Steps that end a run, lowest priority first, of equal ones the last added first.

    A step has its own timeout, and at most what is left of the total less what later steps have
    reserved; with nothing left it is skipped. A step that fails or hangs never stops the next.

    Args:
        clock: Seconds that only grow.

    Example:
        >>> from lightning_elche.coordination.stopping.shutdown import ShutdownPlan
        >>> plan = ShutdownPlan()
        >>> plan.add("say goodbye", lambda: None, priority=50, timeout_s=1.0)
        >>> plan.run(total_s=5.0).to_dict()
        {'say goodbye': 'done'}
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._steps: list[_Step] = []

    def add(
        self,
        name: str,
        fn: Callable[[], object],
        priority: int,
        timeout_s: float,
        *,
        reserve_s: float = 0.0,
        is_on_main: bool = False,
    ) -> None:
        """Add a step; one of the same name is replaced.

        Args:
            name: Of the step.
            fn: What it does.
            priority: When it is taken, see `PRIORITIES`.
            timeout_s: Seconds that it has at most.
            reserve_s: Seconds that steps before it leave to it.
            is_on_main: Take it in the thread that calls `run`, which waits until it is over; the
                rest run on daemon threads, which a hanging step does not hold up.

        Raises:
            ValueError: If a number is not valid.
        """
        if not timeout_s > 0.0:
            raise ValueError(f"`timeout_s` must be > 0, got {timeout_s}.")
        if not reserve_s >= 0.0:
            raise ValueError(f"`reserve_s` must be >= 0, got {reserve_s}.")
        self.remove(name)
        self._steps.append(
            _Step(
                name=name,
                run=fn,
                priority=priority,
                timeout_s=timeout_s,
                reserve_s=reserve_s,
                is_on_main=is_on_main,
            )
        )

    def remove(self, name: str) -> None:
        """Forget a step, if there is one of that name."""
        self._steps = [step for step in self._steps if step.name != name]

    def run(self, total_s: float) -> ShutdownResult:
        """Take all steps.

        Args:
            total_s: Seconds for all of them together.
        """
        deadline = self._clock() + total_s
        outcomes: dict[str, StepOutcome] = {}
        errors: dict[str, BaseException] = {}
        seconds: dict[str, float] = {}
        last_first = self._steps[::-1]
        steps = sorted(last_first, key=lambda step: step.priority)
        for place, step in enumerate(steps):
            began = self._clock()
            reserved = sum(later.reserve_s for later in steps[place + 1 :])
            budget_s = min(step.timeout_s, deadline - began - reserved)
            outcomes[step.name] = self._take(step, budget_s, errors)
            seconds[step.name] = self._clock() - began
        result = ShutdownResult(outcomes=outcomes, errors=errors, seconds=seconds)
        log.info("Shutdown: %s", result.to_dict())
        return result

    def _take(self, step: _Step, budget_s: float, errors: dict[str, BaseException]) -> StepOutcome:
        if budget_s <= 0.0:
            return StepOutcome.SKIPPED

        def attempt() -> None:
            try:
                step.run()
            except BaseException as err:
                errors[step.name] = err
                log.warning("Step %r of the shutdown has failed.", step.name, exc_info=True)

        if step.is_on_main:
            attempt()
        else:
            thread = threading.Thread(target=attempt, name=f"elche-{step.name}", daemon=True)
            thread.start()
            thread.join(budget_s)
            if thread.is_alive():
                log.warning("Step %r took longer than %.1f s.", step.name, budget_s)
                return StepOutcome.TIMED_OUT
        return StepOutcome.FAILED if step.name in errors else StepOutcome.DONE
