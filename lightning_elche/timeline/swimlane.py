"""A picture of a run: one lane per rank, coloured by what it did, and what its time went into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_elche.timeline.aligned import RankTimeline, RunTimeline
from lightning_elche.timeline.causes import Slice, columns_of, totals_of
from lightning_elche.timeline.palette import LOOKS
from lightning_elche.timeline.verdict import told

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Lane", "draw_lanes", "draw_run", "require_matplotlib"]

ZOOM_EVENTS = 6
COLUMNS = 900
LANE_PIXELS, GAP_PIXELS = 60, 6
WHITE = (255, 255, 255)
MAX_LANES = 32
MAX_VERDICTS = 4


@dataclass(frozen=True, kw_only=True)
class Lane:
    """What is drawn of one rank: its name and its causes over time."""

    label: str
    slices: Sequence[Slice]


def require_matplotlib(what: str = "A picture") -> None:
    """Import matplotlib, which only who wants a picture needs.

    Args:
        what: What asks for it, as the error shall name it.

    Raises:
        ModuleNotFoundError: If it is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as err:
        raise ModuleNotFoundError(
            f"{what} needs matplotlib. Install `lightning-elche[plot]`."
        ) from err


def draw_run(timeline: RunTimeline, path: Path) -> None:
    """Draw a run that was recorded; of more than 32 ranks the first ones.

    Args:
        timeline: The run.
        path: The image to write; its folder must exist.

    Raises:
        ModuleNotFoundError: If matplotlib is not installed; the extra `plot` brings it.
    """
    shown = timeline.ranks[:MAX_LANES]
    verdicts = [text for _, text in told(timeline.verdicts())]
    lines = verdicts[:MAX_VERDICTS] or ["Nothing held the ranks up."]
    if len(verdicts) > MAX_VERDICTS:
        lines.append(f"... and {len(verdicts) - MAX_VERDICTS} more: see `elche timeline`.")
    title = "\n".join(lines)
    samples = [_num_samples(rank) for rank in timeline.ranks]
    of_all = sum(samples)  # also of ranks that are not shown
    lanes = [
        Lane(label=_label(rank, own, of_all), slices=rank.slices)
        for rank, own in zip(shown, samples, strict=False)
    ]
    draw_lanes(lanes, path, title=title)


def draw_lanes(lanes: Sequence[Lane], path: Path, *, title: str) -> None:
    """Draw a whole run, a few averaging events of its middle, and the sums.

    Args:
        lanes: The ranks.
        path: The image to write; its folder must exist.
        title: Lines above the picture.

    Raises:
        ModuleNotFoundError: If matplotlib is not installed; the extra `plot` brings it.
        ValueError: If nothing happened.
    """
    if not any(lane.slices for lane in lanes):
        raise ValueError("`lanes` must not be empty: a run needs at least one rank that did steps.")
    require_matplotlib()
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    figure = Figure(figsize=(12, 2.6 + 1.0 * len(lanes)), layout="constrained")
    axes = figure.subplots(2, 2, width_ratios=(3, 1), sharey="row")
    (whole, sums), (zoom, empty) = axes
    begin = min(lane.slices[0].start_ns for lane in lanes if lane.slices)
    end = max(lane.slices[-1].end_ns for lane in lanes if lane.slices)
    low, high = _middle(lanes[0].slices) or (begin, end)
    _draw_columns(whole, lanes, begin, end)
    whole.axvspan((low - begin) / 1e9, (high - begin) / 1e9, fill=False, ec="black", lw=1)
    whole.set_title("the whole run, in seconds", loc="left", fontsize=9)
    _draw_spans(zoom, lanes, low, high)
    zoom.set_title("the marked section, in milliseconds", loc="left", fontsize=9)
    used = _draw_sums(sums, lanes)
    sums.set_title("what its time went into", loc="left", fontsize=9)
    empty.set_axis_off()
    for plot in (whole, zoom):
        plot.set_yticks(range(len(lanes)), labels=[lane.label for lane in lanes], fontsize=8)
        plot.set_ylim(len(lanes) - 0.5, -0.5)
    for plot in (whole, zoom, sums):
        plot.spines[["top", "right", "left"]].set_visible(False)
        plot.tick_params(axis="y", length=0)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    handles = [Patch(color=LOOKS[cause].color, label=LOOKS[cause].words) for cause in used]
    empty.legend(handles=handles, loc="center left", frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)


def _draw_columns(axes: Axes, lanes: Sequence[Lane], begin: float, end: float) -> None:
    """Draw each lane as columns that are divided by cause."""
    rows: list[list[tuple[int, int, int]]] = []
    for lane in lanes:
        columns = columns_of(lane.slices, begin, end, COLUMNS)
        columns_of_pixels = [_pixels(column) for column in columns]
        rows += [[pixels[row] for pixels in columns_of_pixels] for row in range(LANE_PIXELS)]
    extent = (0.0, (end - begin) / 1e9, len(lanes) - 0.5, -0.5)
    axes.imshow(rows, extent=extent, aspect="auto", interpolation="nearest")


def _pixels(column: dict[str, float]) -> list[tuple[int, int, int]]:
    """Return the pixels of a column from the top down, with the largest cause at the bottom."""
    pixels = [WHITE] * GAP_PIXELS
    height, whole = LANE_PIXELS - 2 * GAP_PIXELS, sum(column.values())
    done = 0.0
    for cause, ns in sorted(column.items(), key=lambda item: item[1]):
        done += ns
        color = LOOKS[cause].color
        rgb = int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)
        pixels += [rgb] * (round(height * done / whole) + GAP_PIXELS - len(pixels))
    return pixels + [WHITE] * (LANE_PIXELS - len(pixels))


def _draw_spans(axes: Axes, lanes: Sequence[Lane], low: float, high: float) -> None:
    """Draw each slice at its place, its causes one after the other."""
    for row, lane in enumerate(lanes):
        bars: dict[str, list[tuple[float, float]]] = {}
        for piece in lane.slices:
            if piece.end_ns <= low or piece.start_ns >= high:
                continue
            start_ms = (piece.start_ns - low) / 1e6
            for cause, ns in piece.causes.items():
                bars.setdefault(cause, []).append((start_ms, ns / 1e6))
                start_ms += ns / 1e6
        for cause, places in bars.items():
            axes.broken_barh(places, (row - 0.4, 0.8), facecolors=LOOKS[cause].color)
    axes.set_xlim(0.0, (high - low) / 1e6)


def _draw_sums(axes: Axes, lanes: Sequence[Lane]) -> list[str]:
    """Draw a bar for each lane, and return the causes that are in one."""
    used: dict[str, bool] = {}
    for row, lane in enumerate(lanes):
        totals = totals_of(lane.slices)
        whole, left = sum(totals.values()) or 1.0, 0.0
        for cause, ns in totals.items():
            percent = 100.0 * ns / whole
            if percent > 0.0:
                used[cause] = True
                axes.barh(row, percent, 0.8, left, color=LOOKS[cause].color)
            if percent >= 10.0:
                axes.text(left + percent / 2, row, f"{percent:.0f}", ha="center", va="center")
            left += percent
    axes.set_xlim(0.0, 100.0)
    axes.set_xlabel("percent", fontsize=8)
    return [cause for cause in LOOKS if cause in used]


def _label(rank: RankTimeline, samples: float, of_all: float) -> str:
    share = f"\n{100.0 * samples / of_all:.3g} % of samples" if of_all else ""
    return f"rank {rank.rank}{share}"


def _num_samples(rank: RankTimeline) -> float:
    """Return how many samples the rank has trained since the first averaging event.

    Where there are so many events that only every n-th is kept, it stands for those before it.
    """
    return sum(
        (end_ns - begin_ns) / 1e9 * float(point.a["samples_per_s"])
        for (begin_ns, _), (end_ns, point) in pairwise(rank.of_kind("rank"))
    )


def _middle(slices: Sequence[Slice]) -> tuple[float, float] | None:
    """Begin and end of a few windows in the middle of the run; `None` if there is no average."""
    ends = [piece.end_ns for piece in slices if "average_transfer" in piece.causes]
    if len(ends) < 2:
        return None
    first = max(0, (len(ends) - 1 - ZOOM_EVENTS) // 2)
    return ends[first], ends[min(first + ZOOM_EVENTS, len(ends) - 1)]
