"""From curves of the validation loss to the ratios that count."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TypedDict

DDP = "ddp"
TOLERANCE = 1.01  # as good as DDP: within 1 % of its loss
SHOWN_ANCHORS = 16


class Point(TypedDict):
    """One validation."""

    samples: float
    seconds: float
    loss: float


class Event(TypedDict, total=False):
    """One averaging event; the first knows of no divergence."""

    samples: float
    seconds: float
    anchor: float
    action: str
    previous_divergence: float


class Training(TypedDict):
    """What one training recorded; `events` is empty where there were none."""

    points: list[Point]
    events: list[Event]


# The trainings of one seed, by the name of the row.
Trainings = Mapping[str, Training]
# Median, lowest and highest over the seeds; `None` for a loss that was not reached.
Spread = tuple[float | None, float | None, float | None]


def final_loss(training: Training) -> float:
    """Return the validation loss after the last step."""
    return training["points"][-1]["loss"]


def seconds_to(loss: float, points: Sequence[Point]) -> float:
    """Return when a curve first reaches `loss`, between two validations linearly; else infinity."""
    if points[0]["loss"] <= loss:
        return points[0]["seconds"]
    for before, after in pairwise(points):
        if after["loss"] <= loss:
            part = (before["loss"] - loss) / (before["loss"] - after["loss"])
            return before["seconds"] + part * (after["seconds"] - before["seconds"])
    return math.inf


def loss_ratio(row: str, trainings: Trainings) -> float:
    """Return the final loss over DDP's."""
    return final_loss(trainings[row]) / final_loss(trainings[DDP])


def time_ratio(row: str, trainings: Trainings, *, tolerance: float = 1.0) -> float:
    """Return the time to `tolerance` times DDP's final loss, over what DDP takes to get there."""
    goal = tolerance * final_loss(trainings[DDP])
    own, ddp = (seconds_to(goal, trainings[name]["points"]) for name in (row, DDP))
    return own / ddp


def summarise(seeds: Sequence[Trainings]) -> dict[str, dict[str, Spread]]:
    """Return each measure of each row: the median, lowest and highest of the seeds.

    Ratios are taken within a seed, whose trainings follow each other.
    """
    return {
        row: {
            "loss": spread([final_loss(trainings[row]) for trainings in seeds]),
            "loss_ratio": spread([loss_ratio(row, trainings) for trainings in seeds]),
            "seconds": spread([trainings[row]["points"][-1]["seconds"] for trainings in seeds]),
            "time_ratio": spread([time_ratio(row, trainings) for trainings in seeds]),
            "near_time_ratio": spread(
                [time_ratio(row, trainings, tolerance=TOLERANCE) for trainings in seeds]
            ),
        }
        for row in seeds[0]
    }


def spread(values: Sequence[float]) -> Spread:
    """Return the median, the lowest and the highest; infinite ones as `None`, for JSON."""
    low, median, high = (
        value if math.isfinite(value) else None
        for value in (min(values), statistics.median(values), max(values))
    )
    return median, low, high


def render(summary: Mapping[str, Mapping[str, Spread]]) -> str:
    """Return the table."""
    head = ("", "final loss", "x DDP's", "seconds", "x s to DDP's loss", "x s to within 1 %")
    lines = [_line(head)]
    for row, values in summary.items():
        loss, ratio, seconds = values["loss"], values["loss_ratio"], values["seconds"]
        cells = (
            f"{loss[0]:.4f}",
            _cell(ratio, ".4f"),
            f"{seconds[0]:.1f}",
            _cell(values["time_ratio"], ".2f"),
            _cell(values["near_time_ratio"], ".2f"),
        )
        lines.append(_line((row, *cells)))
    return "\n".join(lines)


def render_events(events: Sequence[Event]) -> str:
    """Return how often the guard acted in a training, and the anchor over time."""
    actions = Counter(event["action"] for event in events)
    step = max(1, math.ceil(len(events) / SHOWN_ANCHORS))
    anchors = " ".join(f"{event['anchor']:.0f}" for event in events[::step])
    drifts = [event["previous_divergence"] for event in events if "previous_divergence" in event]
    early, late = (max(part, default=0.0) for part in (drifts[:5], drifts[-5:]))
    return (
        f"{len(events)} events, HOLD {actions['HOLD']}, TIGHTEN {actions['TIGHTEN']}; "
        f"anchor {anchors}; divergence {early:.3f} (first) {late:.3f} (last)"
    )


def _cell(values: Spread, form: str) -> str:
    median, low, high = ("never" if value is None else format(value, form) for value in values)
    return f"{median} ({low} - {high})"


def _line(cells: Sequence[str]) -> str:
    label, *others = cells
    widths = (11, 25, 9, 23, 23)
    columns = (f"{cell:>{width}}" for cell, width in zip(others, widths, strict=True))
    return f"{label:<23}{''.join(columns)}"
