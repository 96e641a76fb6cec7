"""`elche contract` starts without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.run_folders import write_healthy_run

CONTRACT = str(Path(__file__).parents[2] / "contracts" / "gate-train-v1.yaml")
PROGRAM = """
import sys
from lightning_elche.cli.main import main
try:
    main(sys.argv[2:])
except SystemExit:
    pass
loaded = sorted(set(sys.argv[1].split(",")) & set(sys.modules))
print(", ".join(loaded), file=sys.stderr)
"""


def loaded_by(*arguments: str, of: str = "torch,lightning,numpy") -> str:
    """Return which modules a command has imported, and whatever went wrong."""
    command = [sys.executable, "-c", PROGRAM, of, "contract", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60).stderr.strip()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["validate", CONTRACT],
        ["diff", CONTRACT, CONTRACT],
        ["explain", "EV-PPL"],
        ["schema"],
        ["new"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_files_are_judged_without_torch(arguments: list[str]) -> None:
    """Nor lightning or numpy."""
    assert loaded_by(*arguments) == ""


def test_run_is_judged_without_torch_but_for_its_checkpoints(tmp_path: Path) -> None:
    """`--no-deep` leaves them closed, and so does a gate that does not read them."""
    run = str(write_healthy_run(tmp_path / "run"))
    assert loaded_by("check", run, "--no-deep") == ""
    assert loaded_by("compare", run, run) == ""


def test_checkpoints_are_opened_with_torch(tmp_path: Path) -> None:
    """So that the tests above would see it."""
    run = str(write_healthy_run(tmp_path / "run"))
    assert loaded_by("check", run, of="torch") == "torch"


@pytest.mark.parametrize("arguments", [["--help"], ["explain"]])
def test_help_needs_neither_yaml_nor_jsonschema(arguments: list[str]) -> None:
    """They would double the time that it takes."""
    assert loaded_by(*arguments, of="yaml,jsonschema") == ""
