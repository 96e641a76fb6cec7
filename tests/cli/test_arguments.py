"""What `elche` says of a wrong command line."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lightning_elche.cli.main import main


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """Return the lines of standard error of a command that is refused."""
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("arguments", "verb"),
    [
        (["--bogus"], "elche"),
        (["nope"], "elche"),
        (["coord"], "elche coord"),
        (["coord", "why", "--bogus"], "elche coord why"),
        (["contract", "new", "more"], "elche contract new"),
        (["simulate", "--ranks", "x"], "elche simulate"),
    ],
    ids=" ".join,
)
def test_error_comes_from_the_verb_that_was_meant(
    arguments: list[str], verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With its usage, and where to read on."""
    lines = refusal(capsys, *arguments)
    assert lines[0].startswith(f"usage: {verb} [")
    assert lines[-1] == f"See `{verb} --help`."


@pytest.mark.parametrize(
    "arguments",
    [["timeline", ""], ["contract", "check", ""], ["checkpoint", "ls", ""]],
    ids=lambda arguments: arguments[0],
)
def test_empty_path_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """It would be the working directory, where a variable of the shell was not set."""
    assert refusal(capsys, *arguments)[-2].endswith("must be a path, got ''")


@pytest.mark.parametrize("name", ["folder", "picture.foo"])
def test_picture_of_an_unknown_kind_is_refused(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Instead of being written to a file of another name."""
    lines = refusal(capsys, "simulate", "--png", name)
    assert lines[-2].endswith(f"must end in one of .png, .svg, .pdf, got '{name}'")


def test_package_runs_as_the_command() -> None:
    """With its exit codes, and under its name."""
    command = [sys.executable, "-m", "lightning_elche", "nope"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode == 2
    assert found.stderr.startswith("usage: elche [")
