"""A task that has begun, and ends when it is let go."""

from __future__ import annotations

from lightning_elche.coordination import DeadlineWorker, Task
from tests.coordination.calls import Gate

__all__ = ["blocked"]


def blocked(worker: DeadlineWorker, timeout_s: float | None = 1.0) -> tuple[Task[object], Gate]:
    """Return a task that has begun, and what lets it end."""
    gate = Gate()
    task = worker.submit(gate, "late", timeout_s=timeout_s, name="read")
    assert gate.begun.wait(20.0)
    return task, gate
