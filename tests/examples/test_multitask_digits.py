"""Tests of the example with two tasks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from multitask_digits import LOSSES, Run, pair_loaders, pairs, table, verdict

from tests.examples.script import run_script


def test_lower_digit_is_moved_and_the_brighter_pixel_is_seen() -> None:
    """Eight pixels wide, two further right and down."""
    images = torch.stack([torch.full((8, 8), 0.25), torch.full((8, 8), 0.5)])
    generator = torch.Generator().manual_seed(0)
    canvas, labels = pairs(images, torch.tensor([4, 7]), torch.arange(2), 50, generator)[:]
    upper = canvas[(labels == torch.tensor([4, 7])).all(1)][0].view(10, 10)
    assert (upper[0, 0], upper[5, 5], upper[9, 9], upper[0, 9]) == (0.25, 0.5, 0.5, 0.0)


def test_pairs_are_many() -> None:
    """4,000 to train on, and 1,000 of other digits."""
    train, val = (loader.dataset.tensors[0] for loader in pair_loaders())
    assert (len(train), len(val)) == (4000, 1000)
    assert not {*map(tuple, train.tolist())} & {*map(tuple, val.tolist())}


def runs_with(gain: float) -> dict[str, list[Run]]:
    """Two seeds, 2 points apart; PCGrad is better by `gain`."""
    accuracies = {"sum": (0.90, 0.92), "pcgrad": (0.90 + gain, 0.92 + gain)}
    return {
        name: [Run(accuracy=[(0.0, 0.0), (a, a)], conflicts=[(19, 0.25), (39, 0.75)]) for a in pair]
        for name, pair in accuracies.items()
    }


@pytest.mark.parametrize(
    ("gain", "size"), [(0.01, "no more than"), (-0.01, "no more than"), (0.05, "more than")]
)
def test_verdict_compares_the_gain_with_the_spread(gain: float, size: str) -> None:
    """A difference that seeds make as well is not called one."""
    told = verdict(runs_with(gain))
    assert told.startswith("The two gradients were in conflict at 50% of the steps.")
    assert f"by {100 * gain:+.1f} points" in told
    assert f"), {size} the 2.0 points" in told


def test_table_has_a_row_for_each_way() -> None:
    """With the median and the range."""
    rows = table(runs_with(0.01)).splitlines()[1:]
    assert [row[: len(title)] for row, title in zip(rows, LOSSES.values(), strict=True)] == list(
        LOSSES.values()
    )
    assert "91.0% (90.0%-92.0%)" in rows[0]


@pytest.mark.whole
@pytest.mark.timeout(300)
def test_the_example_compares_both_ways(tmp_path: Path) -> None:
    """It ends with a table, a verdict and a picture, and no warning."""
    arguments = ("--seeds", "1", "--epochs", "1", "--out", "out")
    finished = run_script("examples/multitask_digits.py", *arguments, folder=tmp_path)
    assert (finished.code, finished.stderr) == (0, "")
    assert "PCGrad changed the mean accuracy by" in finished.stdout
    assert (tmp_path / "out" / "multitask.png").stat().st_size > 10_000
