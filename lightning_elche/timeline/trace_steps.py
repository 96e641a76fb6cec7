"""The single steps of a window, where they were recorded."""

from __future__ import annotations

from collections.abc import Iterator

from lightning_elche.timeline.aligned import RankTimeline
from lightning_elche.timeline.causes import Span

__all__ = ["steps_of"]


def steps_of(
    rank: RankTimeline, window: Span, place: tuple[float, float]
) -> Iterator[tuple[float, float]]:
    """Yield begin and end of the recorded steps in a part of a window.

    Raises:
        ValueError: If none were recorded.
    """
    if "steps" not in window.a:
        raise ValueError(
            f"`detail` must be of windows whose steps were recorded, got window "
            f"{window.a.get('index')} of rank {rank.rank}. Train with "
            "CadenceMonitor(detail_steps=...)."
        )
    low, high = place
    for t_ns, duration_ns in window.a["steps"]:
        start_ns = rank.place(t_ns)
        if low <= start_ns < high:
            yield start_ns, min(start_ns + duration_ns, high)
