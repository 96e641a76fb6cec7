"""Draws the efficiencies of one or more tables."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from report import LABELS, OURS, SIDE_BY_SIDE, SOLO

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Summary = Mapping[str, Mapping[str, float]]

OUR_COLOR, OTHERS, REFERENCE = "#3b7dd8", "#9aa5b1", "#dde2e7"
ROW_INCHES = 0.34
WIDEST_NUMBER = 6.0  # how many % of the axis it takes
AXIS = (
    "samples/s over the sum of both ranks alone, in % (line: lowest to highest repeat)\n"
    "* in a plain PyTorch loop, not in a Trainer"
)


def has_matplotlib() -> bool:
    """Return whether anything can be drawn."""
    return find_spec("matplotlib") is not None


def bars_of(summary: Summary) -> list[str]:
    """Return the rows that get a bar, the most efficient first; the ranks alone get none."""
    rows = [row for row in summary if row not in SOLO]
    return sorted(rows, key=lambda row: -summary[row]["of_the_sum_ratio"])


def color_of(row: str) -> str:
    """Return the color of a row: ours, another way to train, or no joint training at all."""
    if row in OURS:
        return OUR_COLOR
    return REFERENCE if row in (SIDE_BY_SIDE, "raw") else OTHERS


def draw(summaries: Mapping[str, Summary], path: Path) -> None:
    """Draw one panel per table, one above the other on the same scale.

    Args:
        summaries: The tables by their title.
        path: The image to write.
    """
    from matplotlib.figure import Figure  # only who wants a picture needs matplotlib

    num_bars = [len(bars_of(summary)) for summary in summaries.values()]
    height = sum(ROW_INCHES * bars + 0.75 for bars in num_bars) + 0.4
    figure = Figure(figsize=(9, height), layout="constrained")
    panels = figure.subplots(
        len(summaries), 1, sharex=True, squeeze=False, height_ratios=[bars + 2 for bars in num_bars]
    )
    for axes, (title, summary) in zip(panels[:, 0], summaries.items(), strict=True):
        _draw_panel(axes, summary)
        axes.set_title(title, loc="left", fontsize=9, pad=16)
    panels[-1, 0].set_xlabel(AXIS, fontsize=9)
    figure.savefig(path, dpi=130)


def _draw_panel(axes: Axes, summary: Summary) -> None:
    rows = bars_of(summary)
    values = [100.0 * summary[row]["of_the_sum_ratio"] for row in rows]
    below = [
        value - 100.0 * summary[row]["of_the_sum_min"]
        for value, row in zip(values, rows, strict=True)
    ]
    above = [
        100.0 * summary[row]["of_the_sum_max"] - value
        for value, row in zip(values, rows, strict=True)
    ]
    axes.barh(
        *(range(len(rows)), values),
        xerr=[below, above],
        color=[color_of(row) for row in rows],
        error_kw={"elinewidth": 1, "ecolor": "#444444"},
        height=0.7,
    )
    for place, (row, value) in enumerate(zip(rows, values, strict=True)):
        fits = value > WIDEST_NUMBER
        ink = "white" if fits and color_of(row) != REFERENCE else "black"
        place_x = 1.0 if fits else value + 1.0
        axes.text(place_x, place, f"{value:.0f}", va="center", fontsize=8, color=ink)
    alone = 100.0 * summary[SOLO[0]]["of_the_sum_ratio"]
    axes.axvline(100.0, color="black", linewidth=0.6)
    axes.axvline(alone, color="#c8374f", linestyle="--", linewidth=1.2)
    above_the_panel = axes.get_xaxis_transform()
    axes.text(
        *(alone, 1.01, "the fast rank alone"),
        transform=above_the_panel,
        ha="center",
        va="bottom",
        color="#c8374f",
        fontsize=8,
    )
    axes.set_yticks(range(len(rows)), labels=[LABELS[row] for row in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
