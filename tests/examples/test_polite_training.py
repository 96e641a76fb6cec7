"""Tests of the example that gives way."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.examples.script import run_script


@pytest.mark.whole
@pytest.mark.timeout(120)
def test_the_example_gives_way_to_others(tmp_path: Path) -> None:
    """While they compute, the training works for much less of the time."""
    finished = run_script(
        "examples/polite_training.py", "--seconds", "3", folder=tmp_path, timeout_s=100.0
    )
    assert finished.code == 0, finished.stderr
    alone, shared, again = map(int, re.findall(r"(\d+)% of the time", finished.stdout))
    assert shared < 80
    assert shared <= alone
    assert again <= 100
