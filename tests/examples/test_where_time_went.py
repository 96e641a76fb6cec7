"""Tests of the example that finds the rank that waits for its data."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.examples.script import run_script


@pytest.mark.whole
@pytest.mark.timeout(120)
def test_the_example_names_the_rank_with_the_slow_storage(tmp_path: Path) -> None:
    """And writes the page that shows it."""
    finished = run_script("examples/where_time_went.py", folder=tmp_path, timeout_s=100.0)
    assert finished.code == 0, finished.stderr
    lines = finished.stdout.splitlines()
    bound = [line for line in lines if "is input-bound" in line]
    assert [line.split(" (")[0] for line in bound] == ["Rank 1"]
    assert (tmp_path / "runs" / "where_time_went" / "report.html").is_file()
