"""Tests of the benchmark of a slow link: its command line, and one short run."""

from __future__ import annotations

import json
from pathlib import Path

import hetero
import pytest
from link import parse_link_arguments
from rate_limit import can_rate_limit

from tests.benchmarks.marks import needs_two_cores
from tests.examples.script import run_script


@needs_two_cores
def test_each_workload_is_measured_with_equal_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """All other settings are the same."""
    monkeypatch.setattr(hetero, "can_rate_limit", lambda: True)
    _, rows = parse_link_arguments(["--mbit", "50", "--seconds", "7"])
    assert [(row.workload, row.quota, row.link_mbit, row.seconds) for row in rows] == [
        ("cnn", 1.0, 50.0, 7.0),
        ("mlp", 1.0, 50.0, 7.0),
    ]


@needs_two_cores
def test_without_root_nothing_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message says what is missing."""
    monkeypatch.setattr(hetero, "can_rate_limit", lambda: False)
    with pytest.raises(SystemExit, match="2"):
        parse_link_arguments([])
    assert "needs root, and the programs ip, tc and nsenter" in capsys.readouterr().err


@pytest.mark.whole
@pytest.mark.timeout(300)
@needs_two_cores
@pytest.mark.skipif(not can_rate_limit(), reason="needs root, ip, tc and nsenter")
def test_a_short_run_over_a_slow_link_favours_few_exchanges(tmp_path: Path) -> None:
    """At 100 Mbit/s a step of DDP with the MLP takes 0.3 s, of which no more than 5 ms are work."""
    short = ["--mbit", "100", "--workloads", "mlp", "--repeats", "1", "--seconds", "1"]
    finished = run_script("benchmarks/link.py", *short, "--json", "all.json", folder=tmp_path)
    assert (finished.code, finished.stderr) == (0, ""), finished.stdout
    (result,) = json.loads((tmp_path / "all.json").read_text())
    assert result["summary"]["elche"]["over_ddp_ratio"] > 2.0
