"""When ranks meet: the pure rules that every rank applies to itself."""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

__all__ = [
    "Plan",
    "Policy",
    "Readiness",
    "Window",
    "is_ready",
    "patience_ms",
    "readiness",
    "should_average",
]

Policy: TypeAlias = Literal["sync", "cadence", "async"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What all ranks agreed on at the last averaging event, equal on every rank.

    Attributes:
        index: Number of the averaging event that ends the window, from 0.
        anchor: Steps of the slowest rank in the window.
        local_steps: Steps of each rank in the window, length world.
        ms_per_batch: Time of a batch on each rank in milliseconds, 0 where unknown, length world.
        shares: Each rank's part of the total throughput, length world, summing to 1.
        slowest: The rank that anchors the window.
        is_calibrated: Whether every rank's speed is known.
        policy: What ends the window: one step of every rank, the planned time, or step counts.
        max_overshoot: Steps beyond `local_steps` that a rank out of work may make on batches of the
            next epoch.
        crosses_nodes: Whether the event averages over all nodes, rather than inside each.
    """

    index: int
    anchor: int
    local_steps: tuple[int, ...]
    ms_per_batch: tuple[float, ...]
    shares: tuple[float, ...]
    slowest: int
    is_calibrated: bool
    policy: Policy = "cadence"
    max_overshoot: int = 0
    crosses_nodes: bool = True

    @cached_property
    def anchor_wall_ms(self) -> float:
        """Planned duration of the window in milliseconds, 0 before calibration."""
        return self.anchor * max(self.ms_per_batch) if self.is_calibrated else 0.0

    @cached_property
    def fastest(self) -> int:
        """The rank with the largest share; the lowest such rank on a tie."""
        return max(range(len(self.shares)), key=lambda rank: (self.shares[rank], -rank))


@dataclass(frozen=True, kw_only=True)
class Window:
    """One rank's progress since the last averaging event.

    Attributes:
        steps: Batches trained.
        compute_ms: Time they took in milliseconds.
        is_drained: Whether the rank has no data left in this epoch.
        is_accumulating: Whether gradients are being accumulated, so that parameters are mid-step.
    """

    steps: int
    compute_ms: float
    is_drained: bool = False
    is_accumulating: bool = False


class Readiness(enum.IntEnum):
    """Why a rank agrees to an averaging event."""

    NOT_READY = 0
    DRAINED = 1
    PROBED = 2
    STEPS = 3
    TIME = 4
    HURRIED = 5


def is_ready(plan: Plan, rank: int, window: Window) -> bool:
    """Return whether `rank` agrees to an averaging event at its present step boundary."""
    return readiness(plan, rank, window) is not Readiness.NOT_READY


def readiness(plan: Plan, rank: int, window: Window) -> Readiness:
    """Decide whether, and why, `rank` agrees to an averaging event at its present step boundary.

    With policy "sync" a rank agrees after every step, with "async" once it has made its
    `local_steps`. With "cadence" the planned time counts. The event takes place once every rank
    agrees, so that the last one to agree sets its time. That should be the slowest rank, at the end
    of one of its long steps: the others, whose steps are short, then join within one of theirs.
    Hence everybody else agrees one slow step early and keeps training.

    Args:
        plan: The agreed plan.
        rank: The rank that asks.
        window: Its progress.
    """
    if window.is_drained:
        return Readiness.DRAINED
    if window.steps < 1 or window.is_accumulating:
        return Readiness.NOT_READY
    if plan.policy == "sync":
        return Readiness.STEPS
    has_made_steps = window.steps >= plan.local_steps[rank]
    if not plan.is_calibrated:
        return Readiness.PROBED if has_made_steps else Readiness.NOT_READY
    if plan.policy == "async":
        return Readiness.STEPS if has_made_steps else Readiness.NOT_READY
    wall_ms = plan.anchor_wall_ms
    if rank == plan.slowest:
        if window.steps >= plan.anchor:
            return Readiness.STEPS
    else:
        wall_ms -= plan.ms_per_batch[plan.slowest]
    return Readiness.TIME if window.compute_ms >= wall_ms else Readiness.NOT_READY


def patience_ms(plan: Plan, rank: int, window: Window) -> float:
    """Return how long `rank`, having agreed, should wait for the slowest rank instead of stepping.

    If the slowest rank arrives in `t`, waiting costs `rank` `t / ms_rank` batches, while one more
    step makes the slowest rank wait `(ms_rank - t) / ms_slow` batches. Waiting is the cheaper one
    for `t < ms_rank**2 / (ms_rank + ms_slow)`: half a step between equal ranks, next to nothing
    for a rank that is much faster. With policy "sync" every rank waits for all.

    Returns:
        Milliseconds, 0 to go on training.
    """
    if plan.policy == "sync":
        return math.inf
    if not plan.is_calibrated or rank == plan.slowest or window.is_drained:
        return 0.0
    own_ms, slow_ms = plan.ms_per_batch[rank], plan.ms_per_batch[plan.slowest]
    limit = own_ms**2 / (own_ms + slow_ms)
    # Both clocks started at the common end of the last event.
    expected = plan.anchor_wall_ms - window.compute_ms
    return limit if expected <= limit else 0.0


def should_average(
    plan: Plan,
    windows: Sequence[Window],
    *,
    is_in_flight: bool = False,
    is_complete: bool = False,
    is_member_lost: bool = False,
) -> bool:
    """Decide for a whole group whether an averaging event is due.

    This is what the readiness counter computes without a coordinator: every rank agrees, and
    nothing forbids it.

    Args:
        plan: The agreed plan.
        windows: Progress of every rank.
        is_in_flight: An event is taking place.
        is_complete: The last epoch is over.
        is_member_lost: A rank is gone.
    """
    if is_in_flight or is_complete or is_member_lost:
        return False
    return all(is_ready(plan, rank, window) for rank, window in enumerate(windows))
