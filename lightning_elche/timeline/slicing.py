"""Turns the spans of a rank into slices while its log is read."""

from __future__ import annotations

from lightning_elche.timeline.causes import Slice, Span, slices_of
from lightning_elche.timeline.packed import PackedSlices

__all__ = ["Slicer"]

MANY = 5_000


class Slicer:
    """Takes spans as they were written, each when it was over, and holds few of them at a time.

    When a window comes, all that began before it has come: it is the outermost of what the main
    thread does. A span that comes later all the same counts from there on.

    Args:
        begin_ns: Where the first slice begins.
        low_ns: What is before is left out.
        high_ns: What is after is left out.
    """

    def __init__(self, begin_ns: float, low_ns: float, high_ns: float) -> None:
        self.slices = PackedSlices()
        self._low_ns, self._high_ns = low_ns, high_ns
        self._done_ns = begin_ns
        self._pending: list[Span] = []

    def add(self, span: Span) -> None:
        """Take the next span."""
        if span.kind == "window" and len(self._pending) >= MANY:
            self.close(span.start_ns)
        self._pending.append(span)

    def close(self, end_ns: float) -> None:
        """Slice what has come so far, up to a moment."""
        if end_ns <= self._done_ns:
            return
        for piece in slices_of(self._pending, self._done_ns, end_ns):
            if piece.end_ns > self._low_ns and piece.start_ns < self._high_ns:
                self.slices.append(_cut(piece, self._low_ns, self._high_ns))
        self._pending = [span for span in self._pending if span.end_ns > end_ns]
        self._done_ns = end_ns


def _cut(piece: Slice, low: float, high: float) -> Slice:
    if piece.start_ns >= low and piece.end_ns <= high:
        return piece
    start_ns, end_ns = max(piece.start_ns, low), min(piece.end_ns, high)
    part = (end_ns - start_ns) / (piece.end_ns - piece.start_ns)
    return Slice(start_ns, end_ns, {cause: part * ns for cause, ns in piece.causes.items()})
