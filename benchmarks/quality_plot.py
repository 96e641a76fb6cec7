"""A picture of the quality benchmark: the validation loss over samples and over time."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from quality_report import DDP, Trainings, final_loss

FIRST_SHOWN = 3  # validations left out at the begin, where the loss falls too steeply to read on


def draw_curves(seeds: Sequence[Trainings], path: Path, *, title: str) -> None:
    """Draw every training, in one colour per row.

    Args:
        seeds: The trainings of each seed.
        path: The image to write.
        title: One line above it.

    Raises:
        ModuleNotFoundError: If matplotlib is not installed; the extra `plot` brings it.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6), layout="constrained")
    by_samples, by_time = figure.subplots(1, 2, sharey=True)
    for axes, name, scale in ((by_samples, "samples", 1e-3), (by_time, "seconds", 1.0)):
        for number, row in enumerate(seeds[0]):
            for seed, trainings in enumerate(seeds):
                points = trainings[row]["points"][FIRST_SHOWN:]
                axes.plot(
                    [scale * _value(point, name) for point in points],
                    [point["loss"] for point in points],
                    color=f"C{number}",
                    linewidth=1.2,
                    marker=".",
                    label=row if seed == 0 else None,
                )
        goal = statistics.median(final_loss(trainings[DDP]) for trainings in seeds)
        axes.axhline(goal, color="gray", linewidth=0.8, linestyle="--")
        axes.spines[["top", "right"]].set_visible(False)
    by_samples.set_xlabel("thousand samples of all ranks")
    by_samples.set_ylabel("validation loss (nats per character)")
    by_time.set_xlabel("seconds of training; dashed: DDP's final loss")
    by_time.legend(frameon=False)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    figure.savefig(path, dpi=130)


def _value(point: Mapping[str, object], name: str) -> float:
    value = point[name]
    assert isinstance(value, float)
    return value
