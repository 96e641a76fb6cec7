"""Pauses between two looks at something that another rank will change."""

from __future__ import annotations

import time
from collections.abc import Iterator

__all__ = ["pauses"]

GROWTH = 1.5


def pauses(first_s: float, longest_s: float) -> Iterator[float]:
    """Sleep at every `next`, longer each time, and yield for how many seconds.

    Args:
        first_s: The first pause in seconds.
        longest_s: The longest one.
    """
    pause_s = first_s
    while True:
        time.sleep(pause_s)
        yield pause_s
        pause_s = min(GROWTH * pause_s, longest_s)
