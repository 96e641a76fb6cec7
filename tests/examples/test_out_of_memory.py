"""Tests of the example in which one rank has little memory."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.examples.script import run_script

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")

TRAINED = r"Rank (\d) trained (\d+) files of up to ([\d,]+) characters, and skipped (\d+)\."


@pytest.mark.whole
@pytest.mark.timeout(120)
def test_the_rank_with_much_memory_trains_what_the_other_one_cannot(tmp_path: Path) -> None:
    """Unless it is skipped when the other one has claimed its last batch."""
    finished = run_script("examples/out_of_memory.py", folder=tmp_path, timeout_s=100.0)
    assert finished.code == 0, finished.stderr
    lines = sorted(re.findall(TRAINED, finished.stdout))
    (_, first, _, none), (_, second, _, skipped) = lines
    total = re.search(r"There are (\d+) files", finished.stdout)
    assert total is not None
    untrained = int(total.group(1)) - int(first) - int(second)
    assert int(none) == 0 <= untrained < int(skipped)
