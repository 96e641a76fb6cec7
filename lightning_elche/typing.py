"""Protocols between the strategy and what hooks into it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from lightning_elche.control.events import AveragingEvent

__all__ = ["SubscribesToAverages"]


@runtime_checkable
class SubscribesToAverages(Protocol):
    """A callback that wants to know of averaging events; a method of this name is enough."""

    def on_average_end(self, event: AveragingEvent) -> None:
        """Called on every rank after an averaging event, in the order of the callbacks."""
        ...
