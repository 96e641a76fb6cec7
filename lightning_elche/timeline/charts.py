"""Small charts as SVG, for a page that loads nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from lightning_elche.timeline.duration import duration_text

__all__ = ["MAX_POINTS", "line_chart"]

MAX_POINTS = 400
WIDTH, HEIGHT = 860, 150
LEFT, TOP, BOTTOM = 60, 10, 22
COLORS = ("#3b7dd8", "#e8590c", "#2f9e44", "#c8374f", "#ae8fdc", "#12a5a5", "#f2b134", "#868e96")

Points = Sequence[tuple[float, float]]


def line_chart(
    lines: Mapping[str, Points], *, begin_s: float, end_s: float, is_staircase: bool = False
) -> str:
    """Return a chart of values over time; of many points every n-th is drawn.

    Args:
        lines: (seconds, value) by name.
        begin_s: Where the time axis begins.
        end_s: Where it ends.
        is_staircase: A value holds until the next one.
    """
    values = [value for points in lines.values() for _, value in points]
    if not values:
        return "<p>Nothing was recorded.</p>"
    low, high = min(0.0, *values), max(*values, 1e-9)
    span_s, span = max(end_s - begin_s, 1e-9), high - low

    def place(second: float, value: float) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT) * (second - begin_s) / span_s
        return x, TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - (value - low) / span)

    parts = [_axes(low, high, begin_s, end_s)]
    for number, (name, points) in enumerate(lines.items()):
        placed = [place(*point) for point in _thinned(points)]
        color = COLORS[number % len(COLORS)]
        path = _path(placed, is_staircase=is_staircase)
        parts.append(
            f'<path d="{path}" fill="none" stroke="{color}" stroke-width="1.5">'
            f"<title>{escape(name)}</title></path>"
        )
    keys = "".join(
        f'<span class="key"><i style="background:{COLORS[number % len(COLORS)]}"></i>'
        f"{escape(name)}</span>"
        for number, name in enumerate(lines)
    )
    chart = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}">{"".join(parts)}</svg>'
    return f'<div class="wide">{chart}</div><p>{keys}</p>'


def _axes(low: float, high: float, begin_s: float, end_s: float) -> str:
    bottom = HEIGHT - BOTTOM
    return (
        f'<path d="M{LEFT} {TOP}V{bottom}H{WIDTH}" fill="none" stroke="#adb5bd"/>'
        f'<text x="{LEFT - 5}" y="{TOP + 8}" text-anchor="end">{high:.4g}</text>'
        f'<text x="{LEFT - 5}" y="{bottom}" text-anchor="end">{low:.4g}</text>'
        f'<text x="{LEFT}" y="{HEIGHT - 6}">{duration_text(begin_s)}</text>'
        f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 6}" text-anchor="middle">'
        f"{duration_text((begin_s + end_s) / 2)}</text>"
        f'<text x="{WIDTH}" y="{HEIGHT - 6}" text-anchor="end">{duration_text(end_s)}</text>'
    )


def _thinned(points: Points) -> Points:
    step = -(-len(points) // MAX_POINTS)
    return points if step <= 1 else [*points[:-1:step], points[-1]]


def _path(placed: Points, *, is_staircase: bool) -> str:
    steps = [f"M{placed[0][0]:.1f} {placed[0][1]:.1f}"] if placed else []
    for x, y in placed[1:]:
        steps.append(f"H{x:.1f}V{y:.1f}" if is_staircase else f"L{x:.1f} {y:.1f}")
    return "".join(steps)
