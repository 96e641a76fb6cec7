"""Tests of the main example."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from epoch_report import Epoch, EpochReport
from pretrain_stdlib import Summary, headline, parse_arguments, rank_factors, render, summarise

from tests.examples.script import run_script


@pytest.fixture
def summary() -> Summary:
    """The result of a run."""
    return Summary(
        val_loss=1.25,
        bits_per_char=1.8,
        share=(0.8, 0.2),
        samples_per_s=1188.0,
        solo_samples_per_s=(960.0, 240.0),
        efficiency=0.99,
        fast_alone=0.8,
    )


def test_no_arguments_are_the_main_job() -> None:
    """Two ranks, one four times slower, under ElCheStrategy."""
    options = parse_arguments([])
    assert (options.devices, options.factor, options.strategy) == (2, 4.0, "elche")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--factor", "0.5"], "argument --factor: must be at least 1, got 0.5"),
        (["--factor", "nan"], "argument --factor: must be at least 1, got nan"),
        (["--epochs", "0"], "argument --epochs: must be at least 1, got 0"),
        (["--devices", "two"], "argument --devices"),
        (["--chars", "10"], "argument --chars: must be at least 1024, got 10"),
        (["--strategy", "fsdp"], "argument --strategy"),
        (["--out", __file__], "argument --out: must be a folder, got the file"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
def test_wrong_arguments_are_named(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message names the argument and what it should be."""
    with pytest.raises(SystemExit, match="2"):
        parse_arguments(arguments)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("cores", "expected"), [(1, True), (2, False)])
def test_too_few_cores_are_noted(cores: int, expected: bool) -> None:
    """Ranks that share a core cannot reach the sum of their speeds."""
    assert ("Note: 2 ranks share 1 cores" in headline(parse_arguments([]), cores=cores)) == expected


@pytest.mark.parametrize(
    ("devices", "expected"), [(1, [1.0]), (2, [1.0, 4.0]), (3, [1.0, 4.0, 1.0])]
)
def test_only_rank_one_is_slow(devices: int, expected: list[float]) -> None:
    """However many ranks there are."""
    assert rank_factors(devices=devices, factor=4.0) == expected


def test_efficiency_is_over_the_sum_of_the_solo_speeds(summary: Summary) -> None:
    """The ratios follow from the speeds."""
    report = EpochReport(11_880)
    report.epochs = [Epoch(val_loss=1.25, samples=11_880, train_s=10.0, share=(0.8, 0.2))]
    result = summarise(report, [960.0, 240.0])
    assert result.bits_per_char == pytest.approx(1.803, abs=1e-3)
    assert (result.efficiency, result.fast_alone) == (summary.efficiency, summary.fast_alone)


def test_the_summary_tells_loss_shares_and_efficiency(summary: Summary, tmp_path: Path) -> None:
    """What a reader looks for is in it, and no picture that does not exist."""
    text = render(summary, picture=tmp_path / "none.png", run_dir=tmp_path)
    for part in ("1.250 (1.80 bits/char)", "rank 0 80.0%, rank 1 20.0%", "99.0% of the sum"):
        assert part in text
    assert "picture" not in text


def test_the_summary_says_where_the_picture_is(summary: Summary, tmp_path: Path) -> None:
    """A picture that exists is named."""
    picture = tmp_path / "swimlane.png"
    picture.touch()
    assert str(picture) in render(summary, picture=picture, run_dir=tmp_path)


@pytest.mark.whole
@pytest.mark.timeout(300)
def test_the_example_runs_to_its_summary(tmp_path: Path) -> None:
    """A short run ends with the summary, without a warning on the terminal."""
    settings = ["--epochs", "1", "--chars", "100000", "--solo-seconds", "1", "--out", "out"]
    finished = run_script("examples/pretrain_stdlib.py", *settings, folder=tmp_path)
    assert (finished.code, finished.stderr) == (0, "")
    assert finished.stdout.count("Result") == 1
    result = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert 1.0 < result["val_loss"] < 4.8
    assert sum(result["share"]) == pytest.approx(1.0)
    assert (tmp_path / "out" / "swimlane.png").exists()


@pytest.mark.whole
@pytest.mark.timeout(300)
def test_the_command_line_of_lightning_runs_the_same_model(tmp_path: Path) -> None:
    """The YAML file names classes and options that exist."""
    short = ["--trainer.max_epochs=1", "--data.chars=20000", "--trainer.enable_progress_bar=false"]
    config = Path(__file__).parents[2] / "examples" / "pretrain_stdlib.yaml"
    finished = run_script(
        "examples/pretrain_cli.py", "fit", "--config", str(config), *short, folder=tmp_path
    )
    assert (finished.code, finished.stderr.count("Error")) == (0, 0)
    assert list(tmp_path.glob("runs/pretrain_cli/version_0/metrics.csv"))
