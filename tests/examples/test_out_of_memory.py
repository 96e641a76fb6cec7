"""Tests of the example in which one rank has little memory."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.examples.script import run_script

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")

TRAINED = r"Rank (\d) trained (\d+) files of up to ([\d,]+) characters, and skipped (\d+)\."


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_rank_with_much_memory_trains_what_the_other_one_cannot(tmp_path: Path) -> None:
    """So that each file is trained once."""
    finished = run_script("examples/out_of_memory.py", folder=tmp_path, timeout_s=100.0)
    assert finished.code == 0, finished.stderr
    lines = sorted(re.findall(TRAINED, finished.stdout))
    (_, first, _, none), (_, second, _, skipped) = lines
    total = re.search(r"There are (\d+) files", finished.stdout)
    assert total is not None
    assert int(first) + int(second) == int(total.group(1))
    assert int(none) == 0 < int(skipped)
