"""Tests of what is known of the peers, and a short run of each that is installed."""

from __future__ import annotations

import json
from typing import Any

import hetero
import peers
import pytest
from hetero import parse_arguments
from peers import PEERS, missing_package

from tests.benchmarks.marks import needs_two_cores
from tests.examples.script import run_script

# `test_hetero.py` runs those that are part of PyTorch.
PACKAGED = [mode for mode in PEERS if mode not in ("join", "averager")]


def test_what_is_part_of_pytorch_needs_no_package() -> None:
    """Nor does what is no peer."""
    assert [missing_package(mode) for mode in ("join", "averager", "elche")] == [None] * 3


@needs_two_cores
def test_a_missing_package_is_named_with_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The row cannot be measured, and the message says what to do."""
    monkeypatch.setattr(peers, "find_spec", lambda _: None)
    with pytest.raises(SystemExit, match="2"):
        parse_arguments(["--modes", "elche", "diloco"])
    assert "--modes: diloco needs torchft; run: pip install torchft" in capsys.readouterr().err


def test_nothing_is_needed_by_default() -> None:
    """Peers are measured only when named."""
    assert not set(hetero.DEFAULT_MODES) & set(PEERS)


@pytest.fixture(scope="module")
def short_run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The results of a short run of every package that is installed, by mode."""
    folder = tmp_path_factory.mktemp("peers")
    modes = [mode for mode in PACKAGED if not missing_package(mode)]
    short = ["--repeats", "1", "--seconds", "0.5", "--quota", "0.5", "--workload", "mlp"]
    finished = run_script(
        "benchmarks/hetero.py",
        *(*short, "--modes", *modes, "--json", "all.json"),
        folder=folder,
        timeout_s=500.0,
    )
    assert (finished.code, finished.stderr) == (0, ""), finished.stdout
    runs: dict[str, Any] = json.loads((folder / "all.json").read_text())[0]["repeats"][0]
    return runs


@pytest.mark.whole
@pytest.mark.timeout(600)
@needs_two_cores
@pytest.mark.parametrize("mode", PACKAGED)
def test_a_short_run_counts_both_ranks(mode: str, request: pytest.FixtureRequest) -> None:
    """Nothing fails, and the speed is that of all samples."""
    if package := missing_package(mode):
        pytest.skip(f"needs {package}")
    run = request.getfixturevalue("short_run")[mode]
    assert run["samples_per_s"] == pytest.approx(run["samples"] / run["seconds"])
