"""Tests of the short example."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from classify_digits import digit_loaders

from tests.examples.script import run_script


def test_a_fifth_of_the_digits_is_held_out() -> None:
    """The two parts are the whole data set."""
    train, val = digit_loaders()
    assert (len(train.dataset), len(val.dataset)) == (1438, 359)  # type: ignore[arg-type]


@pytest.mark.whole
@pytest.mark.timeout(300)
def test_the_example_learns_the_digits_on_both_ranks(tmp_path: Path) -> None:
    """It ends with a good accuracy and the shares of both ranks, and no warning."""
    finished = run_script("examples/classify_digits.py", folder=tmp_path)
    assert (finished.code, finished.stderr) == (0, "")
    accuracy, *shares = (float(part) for part in re.findall(r"([\d.]+)%", finished.stdout))
    assert accuracy > 90.0
    assert sum(shares) == pytest.approx(100.0, abs=0.2)


@pytest.mark.whole
@pytest.mark.timeout(300)
def test_unknown_arguments_are_refused(tmp_path: Path) -> None:
    """Nothing is accepted and ignored."""
    finished = run_script("examples/classify_digits.py", "--epochs", "3", folder=tmp_path)
    assert finished.code == 2
    assert "unrecognized arguments: --epochs 3" in finished.stderr
