"""Tests of what is measured about reading step logs."""

from __future__ import annotations

from pathlib import Path

import pytest
from contract_reading import judge, peaks_of_new_process, us_per_line, write_log

from lightning_elche.contracts.steplog.reading import fastest_decoders


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "train.jsonl"
    write_log(path, lines=300)
    return path


def test_every_way_of_reading_is_measured(log: Path) -> None:
    """Each takes some time."""
    us = us_per_line(log, lines=300, repeats=1)
    assert (len(us), min(us.values()) > 0) == (6, True)


def test_log_that_fails_a_gate_is_no_benchmark(log: Path) -> None:
    """What is measured must be the reading of a clean log."""
    log.write_bytes(log.read_bytes().replace(b'"step":7,', b'"step":8,'))
    with pytest.raises(RuntimeError, match="should pass all gates"):
        judge(log, fastest_decoders())


@pytest.mark.slow
def test_peak_of_memory_is_that_of_a_new_process(log: Path) -> None:
    """It holds the modules before and little more after."""
    before, after = peaks_of_new_process(log)
    assert 5 < before <= after < 60
