"""Tests of the example that undoes bad batches."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.examples.script import run_script


@pytest.mark.whole
@pytest.mark.timeout(120)
def test_the_example_ends_as_if_the_batches_had_never_been_there(tmp_path: Path) -> None:
    """Both are told, and the run without Rollback shows what they would have done."""
    finished = run_script("examples/survive_a_bad_batch.py", folder=tmp_path, timeout_s=100.0)
    assert finished.code == 0, finished.stderr
    assert finished.stderr.endswith("Look at the data and at the learning rate.\n")
    steps = re.findall(r"  loss .*: back at step (\d+)", finished.stdout)
    lost, saved, reference = map(float, re.findall(r"([\d.]+)%", finished.stdout))
    assert steps == ["30", "119"]
    assert lost < 20.0 < 70.0 < saved == reference
    assert finished.stdout.endswith("equal to the last bit: True\n")
