"""The verb `elche simulate`."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lightning_elche.cli.main import main
from lightning_elche.version import VERSION


def simulate(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    assert main(["simulate", "--format", "json", *arguments]) == 0
    result: dict[str, object] = json.loads(capsys.readouterr().out)
    return result


def test_shares_follow_the_speeds(capsys: pytest.CaptureFixture[str]) -> None:
    """A rank of a quarter of the speed gets a fifth of the samples."""
    result = simulate(capsys, "--speeds", "1,0.25")
    assert result["share"] == pytest.approx([0.8, 0.2], abs=0.01)
    assert result["fastest_alone"] == pytest.approx(0.8)


def test_speeds_are_repeated_for_more_ranks(capsys: pytest.CaptureFixture[str]) -> None:
    """Six ranks take the two speeds in turn."""
    result = simulate(capsys, "--speeds", "1,0.5", "--ranks", "6")
    assert result["share"] == pytest.approx([2 / 9, 1 / 9] * 3, abs=0.01)


def test_slow_link_raises_the_anchor(capsys: pytest.CaptureFixture[str]) -> None:
    """An exchange of 962 ms per event would cost too much every 10 steps."""
    result = simulate(capsys, "--link", "100")
    assert result["exchange_ms"] == 962.0
    anchors = result["anchor"]
    assert isinstance(anchors, list)
    assert max(anchors) > 10


def test_event_costs_what_the_link_takes_for_the_parameters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of 32 Mbit each of four ranks sends one and a half times as many, and 1 ms is fixed."""
    arguments = ("--speeds", "1,1,1,1", "--parameters", "1e6", "--optimizer-states", "0")
    result = simulate(capsys, *arguments, "--link", "1000", "--event-ms", "1")
    assert result["exchange_ms"] == pytest.approx(1.0 + 1.5 * 32.0)


def test_epoch_grows_with_the_ranks(capsys: pytest.CaptureFixture[str]) -> None:
    """Each of eight equal ranks trains its thousand batches of 20 ms, as each of two does."""
    walls = [simulate(capsys, "--speeds", "1", "--ranks", n)["wall_s"] for n in ("2", "8")]
    assert walls == pytest.approx([20.4, 20.4], rel=0.05)


def test_text_is_short_and_names_the_efficiency(capsys: pytest.CaptureFixture[str]) -> None:
    """A person reads seven lines."""
    assert main(["simulate"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7
    assert lines[0].startswith("efficiency")


def test_picture_is_drawn_on_request(tmp_path: Path) -> None:
    """`--png` writes an image."""
    png = tmp_path / "run.png"
    assert main(["simulate", "--png", str(png)]) == 0
    assert png.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batches", "1"], "`--batches` must be at least 2, one for each rank, got 1"),
        (["--anchor", "0"], "`anchor` must be >= 1, got 0"),
        (["--speeds", "1"], "`--speeds` must be of at least 2 ranks"),
        (["--png", "/nowhere/run.png"], "/nowhere/run.png does not exist"),
    ],
)
def test_impossible_request_is_explained(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and the reason on standard error."""
    assert main(["simulate", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--speeds", "1,x"],
        ["--speeds", "0,1"],
        ["--speeds", "1e-300,1e300"],
        ["--step-ms", "-1"],
        ["--ranks", "1"],
        ["--png", "picture"],
    ],
)
def test_wrong_argument_is_refused(arguments: list[str]) -> None:
    """Argparse's exit code is 2."""
    with pytest.raises(SystemExit, match="2"):
        main(["simulate", *arguments])


def test_elche_starts_without_torch() -> None:
    """Only what trains needs torch."""
    code = (
        "import sys; from lightning_elche.cli.main import main; main(['simulate']); "
        "assert not {'torch', 'lightning', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


@pytest.mark.slow
def test_thousand_ranks_are_simulated_in_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    """1024 ranks of three speeds train a thousand batches each, a second for 17 of them."""
    begun = time.perf_counter()
    result = simulate(capsys, "--speeds", "1,1,0.25", "--ranks", "1024")
    assert result["ranks"] == 1024
    assert time.perf_counter() - begun < 60.0


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """The name and the number, and exit code 0."""
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"lightning-elche {VERSION}\n"


def test_quiet_shows_the_efficiency_and_verbose_each_epoch(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line, or one more than usual for each epoch."""
    lengths = []
    for talk in ("-q", "--epochs=2", "-v"):
        assert main(["simulate", talk]) == 0
        lengths.append(len(capsys.readouterr().out.splitlines()))
    assert lengths == [1, 7, 8]


def test_workflow_is_told_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    """As by the other verbs."""
    assert main(["simulate", "--ranks=4", "--batches=2", "--format=github"]) == 2
    assert capsys.readouterr().out.splitlines()[-1] == "elche simulate: 1 problem"
