"""One step count for all ranks: crossings instead of multiples, schedules by total work."""

from __future__ import annotations

import math

__all__ = ["has_crossed", "schedule_count"]


def has_crossed(before: int, now: int, every: int) -> bool:
    """Return whether a multiple of `every` lies in `(before, now]`.

    The agreed step count jumps from event to event, so that a test for multiples would miss most.
    """
    return every > 0 and before // every < now // every


def schedule_count(
    position: int, *, batches: float = math.inf, frequency: int = 1, accumulate: int = 1
) -> int:
    """Return how often a learning-rate schedule has been stepped after `position` optimizer steps.

    Lightning steps it at batches that are multiples of the schedule's `frequency` (in batches) and
    end an accumulation, hence at multiples of the least common multiple.
    It counts anew in every epoch, so for steps on batches of the next one, too.

    Args:
        position: Optimizer steps of all ranks since the epoch began.
        batches: Batches of all ranks in the epoch, infinite if unknown.
        frequency: The schedule's `frequency`.
        accumulate: The Trainer's `accumulate_grad_batches`.
    """
    period = math.lcm(frequency, accumulate) // accumulate
    end = position if math.isinf(batches) else math.ceil(batches / accumulate)
    # With accumulation nobody trains ahead, but each rank ends the epoch with a short one.
    ahead = max(0, position - end) if accumulate == 1 else 0
    return min(position, end) // period + ahead // period
