"""Recording and reading cost little."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import pytest

from lightning_elche.timeline.aligned import load
from lightning_elche.timeline.host import HostSampler
from lightning_elche.timeline.report import write_page
from tests.timeline.day import WORLD, Day

pytestmark = pytest.mark.timing


def test_sampler_takes_half_a_percent_of_a_core(tmp_path: Path) -> None:
    """It is called once a second."""
    sample, taken = HostSampler(tmp_path), []
    for _ in range(200):
        begun = time.thread_time()
        sample()
        taken.append(time.thread_time() - begun)
    assert statistics.mean(taken) <= 0.005


def test_million_records_are_reported_in_ten_seconds(tmp_path: Path) -> None:
    """A tenth of them in one second of the processor."""
    for rank in range(WORLD):
        Day(tmp_path, rank).record(2000)
    records = sum(path.read_bytes().count(b"\n") for path in tmp_path.rglob("rank*.jsonl"))
    begun = time.process_time()
    write_page(load(tmp_path), tmp_path / "page.html")
    assert time.process_time() - begun <= 10.0 * records / 1e6
