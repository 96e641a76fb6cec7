"""Tests of what a benchmark hands on, and of making it again from the JSON."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

import pytest
import render
import results
from plot import bars_of
from report import DDP, ELCHE, summarise
from results import Result, as_markdown, check_output_options, read, write

SPEEDS = {
    "solo fast": 800.0,
    "solo slow": 200.0,
    "side by side": 980.0,
    DDP: 40.0,
    "torchft": 500.0,
    ELCHE: 960.0,
}
RESULT = Result(
    title="cnn; rank 1: 25.0% of a core",
    machine={"cpu": "Fast 9000", "cores": 2, "load_1min": "0.1", "torch": "2", "lightning": "3"},
    settings={"quota": 0.25},
    summary=summarise([SPEEDS]),
    repeats=[],
)


def outputs(folder: Path) -> list[str]:
    """Return arguments that ask for all three kinds."""
    names = ["json", "markdown", "plot"]
    return [part for name in names for part in (f"--{name}", str(folder / f"{name}.png"))]


def test_results_read_again_are_equal(tmp_path: Path) -> None:
    """JSON keeps all."""
    file = tmp_path / "all.json"
    write([RESULT, RESULT], Namespace(json=file, markdown=None, plot=None))
    assert read(file) == [RESULT, RESULT]


def test_the_markdown_has_a_row_for_each_row_of_the_table() -> None:
    """Title, head, rule, six rows, the footnote, the machine; stars do not make text italic."""
    lines = as_markdown(RESULT).splitlines()
    assert lines[0] == "### cnn; rank 1: 25.0% of a core"
    assert lines[8].startswith(r"| both, torchft LocalSGD \* | 500 |")
    assert lines[9] == (
        "| both, ElCheStrategy | 960 | 96.0% | (96.0% - 96.0%) | 98.0% | 24.00 | 1.20 |"
    )
    assert lines[-1] == "Fast 9000, 2 cores, load 0.1, torch 2, lightning 3"


def test_bars_begin_with_the_most_efficient_and_leave_out_the_ranks_alone() -> None:
    """One of them is a line instead."""
    assert bars_of(RESULT["summary"]) == ["side by side", ELCHE, "torchft", DDP]


def test_all_is_made_again_from_the_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two files give two tables and one picture."""
    pytest.importorskip("matplotlib")
    file = tmp_path / "all.json"
    write([RESULT], Namespace(json=file, markdown=None, plot=None))
    assert render.main([str(file), str(file), *outputs(tmp_path)]) == 0
    table = (tmp_path / "markdown.png").read_text()
    assert capsys.readouterr().out == table
    assert table.count("### cnn") == 2
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_plot_without_matplotlib_is_refused_before_measuring(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Not after an hour."""
    monkeypatch.setattr(results, "has_matplotlib", lambda: False)
    options = Namespace(json=None, markdown=None, plot=tmp_path / "plot.png")
    with pytest.raises(SystemExit, match="2"):
        check_output_options(ArgumentParser(), options)
    assert "argument --plot: needs matplotlib" in capsys.readouterr().err
