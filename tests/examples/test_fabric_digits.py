"""Test of the example for Fabric."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.examples.script import run_script


@pytest.mark.whole
@pytest.mark.timeout(300)
def test_the_example_learns_the_digits_in_its_own_loop(tmp_path: Path) -> None:
    """It ends with a good accuracy, the shares and the last events, and no warning."""
    finished = run_script("examples/fabric_digits.py", folder=tmp_path)
    assert (finished.code, finished.stderr) == (0, "")
    accuracy, *shares = (float(part) for part in re.findall(r"([\d.]+)%", finished.stdout))
    assert accuracy > 90.0
    assert sum(shares) == pytest.approx(100.0, abs=0.2)
    assert finished.stdout.count("agreed last") == 2
