"""A picture of a run: one lane per rank, coloured by what it did."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_elche.timeline.spans import Span

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_swimlane"]

COLORS = {"compute": "#3b7dd8", "wait": "#f2b134", "average": "#c8374f"}
ZOOM_EVENTS = 6


def draw_swimlane(
    spans: Sequence[Span], path: Path, *, shares: Sequence[float], title: str
) -> None:
    """Draw the whole run and, below, a few averaging events of its middle.

    Args:
        spans: What every rank did.
        path: The image to write; its folder must exist.
        shares: Each rank's part of the samples, for the labels.
        title: One line above the picture.

    Raises:
        ModuleNotFoundError: If matplotlib is not installed; the extra `plot` brings it.
        ValueError: If there are no spans.
    """
    if not spans:
        raise ValueError("`spans` must not be empty: a run needs at least two averaging events.")
    from matplotlib.figure import Figure  # only who wants a picture needs matplotlib

    figure = Figure(figsize=(11, 2.2 + 0.8 * len(shares)), layout="constrained")
    whole, zoom = figure.subplots(2, 1)
    origin = min(span.start_s for span in spans)
    low, high = _middle(spans)
    _draw(whole, spans, origin, shares)
    whole.set_xlim(0.0, max(span.start_s + span.duration_s for span in spans) - origin)
    for rank in range(len(shares)):
        whole.annotate(
            _composition(spans, rank),
            (1.01, rank),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=7,
        )
    whole.set_title(title, loc="left", fontsize=11)
    whole.axvspan(low - origin, high - origin, facecolor="none", edgecolor="black", linewidth=1)
    _draw(
        zoom, [s for s in spans if s.start_s + s.duration_s > low and s.start_s < high], low, shares
    )
    zoom.set_xlim(0.0, high - low)
    zoom.set_title("the marked section", loc="left", fontsize=9)
    zoom.set_xlabel("seconds (white: validation and everything else between events)", fontsize=9)
    handles, labels = whole.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(COLORS), frameon=False)
    figure.savefig(path, dpi=130)


def _draw(axes: Axes, spans: Sequence[Span], origin: float, shares: Sequence[float]) -> None:
    for kind, color in COLORS.items():
        for rank in range(len(shares)):
            bars = [
                (span.start_s - origin, span.duration_s)
                for span in spans
                if span.rank == rank and span.kind == kind
            ]
            label = kind if rank == 0 else None
            axes.broken_barh(bars, (rank - 0.4, 0.8), facecolors=color, label=label)
    labels = [f"rank {rank}\n{100.0 * share:.3g} % of samples" for rank, share in enumerate(shares)]
    axes.set_yticks(range(len(shares)), labels=labels, fontsize=8)
    axes.invert_yaxis()
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _composition(spans: Sequence[Span], rank: int) -> str:
    """How a rank's time divides, in percent of what the spans cover."""
    sums = {
        kind: sum(span.duration_s for span in spans if span.rank == rank and span.kind == kind)
        for kind in COLORS
    }
    total = sum(sums.values())
    return "\n".join(f"{kind} {duration / total:.1%}" for kind, duration in sums.items())


def _middle(spans: Sequence[Span]) -> tuple[float, float]:
    """Begin and end of a few windows in the middle of the run."""
    ends = sorted(s.start_s + s.duration_s for s in spans if s.kind == "average" and s.rank == 0)
    first = max(0, (len(ends) - ZOOM_EVENTS) // 2)
    window = ends[first : first + ZOOM_EVENTS + 1]
    start = min(span.start_s for span in spans) if len(window) == 1 else window[0]
    return start, window[-1]
