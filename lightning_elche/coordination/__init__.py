"""What goes on beside training and must never hold it up; standard library only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_elche.lazy import lazy_names

if TYPE_CHECKING:
    from lightning_elche.coordination.publisher import (
        Breaker,
        BreakerState,
        Publisher,
        PublishEvent,
    )
    from lightning_elche.coordination.task import Task, TaskTimeout, Token
    from lightning_elche.coordination.worker import DeadlineWorker

__all__ = [
    "Breaker",
    "BreakerState",
    "DeadlineWorker",
    "PublishEvent",
    "Publisher",
    "Task",
    "TaskTimeout",
    "Token",
]

_MODULES = {
    "Breaker": "publisher",
    "BreakerState": "publisher",
    "DeadlineWorker": "worker",
    "PublishEvent": "publisher",
    "Publisher": "publisher",
    "Task": "task",
    "TaskTimeout": "task",
    "Token": "task",
}

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
