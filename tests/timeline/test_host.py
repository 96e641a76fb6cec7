"""The machine is sampled in percent."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from lightning_elche.timeline.host import HostSampler


def test_first_sample_says_nothing_of_the_cpu(tmp_path: Path) -> None:
    """There is nothing before it to compare with; psutil says 0, in each thread anew."""
    sample, samples = HostSampler(tmp_path), []

    def take() -> None:
        samples.extend([sample(), sample()])

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    assert samples[0]["cpu"] is None
    assert 0.0 <= samples[1]["cpu"] <= 100.0


def test_sample_has_memory_disk_and_what_is_known_of_gpus(tmp_path: Path) -> None:
    """In percent."""
    sample: dict[str, Any] = HostSampler(tmp_path, lambda: {"gpu": [7]})()
    assert 0.0 < sample["memory"] < 100.0
    assert 0.0 < sample["disk"] < 100.0
    assert sample["gpu"] == [7]


def test_disk_that_is_gone_is_unknown(tmp_path: Path) -> None:
    """And no error."""
    assert HostSampler(tmp_path / "gone")()["disk"] is None
