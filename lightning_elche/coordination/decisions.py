"""What an averaging event has decided, as events to tell; pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lightning_elche.control.guard import GuardAction

if TYPE_CHECKING:
    from lightning_elche.control.events import AveragingEvent
    from lightning_elche.control.schedule import Plan

__all__ = ["decisions_of"]

SHARE_CHANGE = 0.01

Decision = tuple[str, "dict[str, object]"]


def decisions_of(event: AveragingEvent, *, before: Plan | None) -> Iterator[Decision]:
    """Yield kind and particulars: `average`, then `anchor` and `share` where those have changed.

    A share counts as changed once a rank's differs by a hundredth from what it was.

    Args:
        event: The event; equal on every rank but for what it took.
        before: The plan of the window that it ends; `None` if that is not known.
    """
    yield (
        "average",
        {
            "index": event.index,
            "epoch": event.epoch,
            "global_step": event.global_step,
            "anchor": event.plan.anchor,
            "wait_ms": round(event.wait_ms, 3),
            "transfer_ms": round(event.transfer_ms, 3),
        },
    )
    if before is None:
        return
    if before.anchor != event.plan.anchor:
        change = {"from": before.anchor, "to": event.plan.anchor, "reason": _reason(event)}
        yield "anchor", change
    pairs = zip(before.shares, event.plan.shares, strict=True)
    if any(abs(new - old) >= SHARE_CHANGE for old, new in pairs):
        yield "share", {"shares": [round(share, 4) for share in event.plan.shares]}


def _reason(event: AveragingEvent) -> str:
    if event.action is not GuardAction.STABLE and math.isfinite(event.divergence):
        return f"divergence {event.divergence:.2g}: {event.action.name.lower()}"
    return f"overhead {event.overhead_ratio:.2f}"
