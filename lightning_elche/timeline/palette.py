"""How causes are shown: order, colours and words."""

from __future__ import annotations

from typing import NamedTuple

from lightning_elche.timeline.causes import BUSY, CAUSES

__all__ = ["IDLE_CAUSES", "LOOKS", "Look"]


class Look(NamedTuple):
    """The colour of a cause and what a legend calls it."""

    color: str
    words: str


LOOKS = {
    "compute": Look("#3b7dd8", "compute"),
    "input": Look("#e8590c", "waiting for data"),
    "throttle": Look("#ae8fdc", "throttled"),
    "hooks": Look("#868e96", "callbacks, logging, loop"),
    "average_wait": Look("#f2b134", "waiting for ranks"),
    "average_transfer": Look("#c8374f", "exchanging parameters"),
    "validation": Look("#2f9e44", "validation"),
    "checkpoint": Look("#12a5a5", "checkpoint"),
    "startup": Look("#ced4da", "start"),
    "paused": Look("#5f3dc4", "paused"),
    "sit_out": Look("#343a40", "sitting out"),
    "other": Look("#d9c7a3", "unexplained"),
}
IDLE_CAUSES = tuple(cause for cause in CAUSES if cause not in BUSY)
