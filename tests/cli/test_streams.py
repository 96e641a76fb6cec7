"""What `elche` does where its output cannot be written, and how it tells what went wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_elche.cli.main import main
from lightning_elche.cli.streams import told

PROGRAM = "import sys; from lightning_elche.cli.main import main; sys.exit(main())"
VERBS = [["simulate"], ["contract", "explain"], ["--help"]]
FULL = Path("/dev/full")


def finished(arguments: list[str], stdout: int) -> tuple[int, str]:
    """Return exit code and standard error of a command that writes to a descriptor."""
    command = [sys.executable, "-c", PROGRAM, *arguments]
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        command, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=60, env=environment
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("arguments", VERBS, ids=lambda arguments: arguments[0])
def test_nobody_who_reads_is_no_error(arguments: list[str]) -> None:
    """As after `| head`: the exit code is that of SIGPIPE, and nothing is said."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert finished(arguments, writer) == (141, "")
    finally:
        os.close(writer)


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
def test_full_disk_is_an_error() -> None:
    """Exit code 2, and the reason once."""
    with FULL.open("wb") as full:
        code, text = finished(["simulate"], full.fileno())
    assert code == 2
    assert text == "elche: [Errno 28] No space left on device\n"


@pytest.mark.parametrize(
    "arguments", [["simulate"], ["contract", "new"], ["coord", "config"]], ids=lambda one: one[0]
)
def test_closed_output_is_no_error(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As after `>&-`; then Python has no standard output at all."""
    monkeypatch.setattr(sys, "stdout", None)
    assert main(arguments) == 0


def test_report_is_drawn_without_output(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where a terminal would have decided on colours."""
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["contract", "validate", str(tmp_path / "none.yaml")]) == 3
    assert main(["checkpoint", "ls", str(tmp_path)]) == 0


def test_interrupted_command_has_the_exit_code_of_the_signal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a traceback."""

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lightning_elche.cli.simulate.simulate", interrupt)
    assert main(["simulate"]) == 130


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (FileNotFoundError(2, "No such file or directory", "a"), "a does not exist."),
        (IsADirectoryError(21, "Is a directory", "a"), "a is a folder, but must be a file."),
        (OSError(5, "Input/output error", "a"), "a is not usable: Input/output error."),
        (OSError("gone"), "gone"),
        (ValueError("`n` must be 1."), "`n` must be 1."),
    ],
)
def test_error_is_told_without_numbers(error: Exception, text: str) -> None:
    """With the path, and what is the matter with it."""
    assert told(error) == text
