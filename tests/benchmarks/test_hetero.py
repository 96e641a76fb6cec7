"""Tests of the benchmark's command line, and one short run."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from pathlib import Path

import hetero
import pytest
import unequal
import workload
from cpu_group import can_limit
from hetero import bench_for, parse_arguments, title_of
from machine import cpu_model

from tests.benchmarks.marks import needs_two_cores
from tests.examples.script import run_script


@pytest.fixture
def options() -> Namespace:
    """Options as the command line gives them."""
    return Namespace(workload="cnn", quota=0.25, drift=[], link_mbit=None, repeats=3, seconds=20.0)


def test_the_workloads_on_offer_are_those_that_there_are() -> None:
    """The command line names them without importing torch."""
    assert tuple(workload.WORKLOADS) == hetero.WORKLOADS


@pytest.mark.parametrize(("name", "parameters"), [("cnn", 288_554), ("mlp", 942_442)])
def test_a_workload_has_the_size_it_says(name: str, parameters: int) -> None:
    """Four bytes each."""
    assert workload.bytes_of(workload.WORKLOADS[name]()) == 4 * parameters


@needs_two_cores
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--quota", "2"], "argument --quota: must be a part between 0.01 and 1, got 2"),
        (["--repeats", "0"], "argument --repeats: must be at least 1, got 0"),
        (["--seconds", "-1"], "argument --seconds: must be a positive number, got -1"),
        (["--modes", "fsdp"], "argument --modes: invalid choice"),
        (["--json", "/nowhere/at/all.json"], "argument --json: must be in an existing folder"),
    ],
)
def test_wrong_arguments_are_named(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message names the argument and what it should be."""
    with pytest.raises(SystemExit, match="2"):
        parse_arguments(arguments)
    assert message in capsys.readouterr().err


def test_without_groups_the_slow_rank_sleeps_and_the_title_says_so(
    options: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quarter of the speed is a factor of four."""
    monkeypatch.setattr(unequal, "can_limit", lambda: False)
    assert "by sleeping" in title_of(options)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    with bench_for(options) as bench:
        assert bench.slow == ("--factor", "4.0")


def test_equal_ranks_are_not_slowed(options: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quota of one needs no group."""
    options.quota = 1.0
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 7})
    with bench_for(options) as bench:
        assert (bench.slow, bench.cores) == ((), (3, 7))


def test_the_model_of_the_cpu_is_found(tmp_path: Path) -> None:
    """The first core's name stands for all."""
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: Fast 9000\nmodel name\t: Other\n")
    assert cpu_model(cpuinfo) == "Fast 9000"


@pytest.mark.whole
@pytest.mark.timeout(300)
@needs_two_cores
def test_a_short_run_ends_with_a_table_and_all_results(tmp_path: Path) -> None:
    """All rows that need no further package, and the parts of a row are all its time."""
    modes = ["ddp", "elche", "averager"]
    short = ["--repeats", "1", "--seconds", "1", "--modes", *modes, "--json", "all.json"]
    # Little less than a whole core, since interpreters start as slowly as the rank is.
    drift = ["--quota", "0.9", "--drift", "0.8"] if can_limit() else []
    finished = run_script("benchmarks/hetero.py", *short, *drift, folder=tmp_path)
    assert (finished.code, finished.stderr) == (0, "")
    assert "both, ElCheStrategy" in finished.stdout
    (result,) = json.loads((tmp_path / "all.json").read_text())
    assert set(result["repeats"][0]) == {"solo fast", "solo slow", "side by side", *modes}
    assert all(run["samples_per_s"] > 0.0 for run in result["repeats"][0].values())
    row = result["repeats"][0]["elche"]
    assert sum(row["details"]["share"]) == pytest.approx(1.0)
    assert not drift or sum(row["quota_shares"]) == pytest.approx(1.0)


@needs_two_cores
def test_a_failing_rank_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exit code is 1, and the worker's traceback is shown."""
    (tmp_path / "torch.py").write_text("raise ImportError('a broken torch')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    finished = run_script("benchmarks/hetero.py", "--repeats", "1", folder=tmp_path)
    assert finished.code == 1
    assert "a broken torch" in finished.stderr
