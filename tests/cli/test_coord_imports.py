"""`elche coord` starts without torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from lightning_elche.cli.main import main
try:
    main(sys.argv[2:])
except SystemExit:
    pass
loaded = sorted(set(sys.argv[1].split(",")) & set(sys.modules))
print("loaded:", ", ".join(loaded), file=sys.stderr)
"""


def loaded_by(*arguments: str, of: str, folder: object) -> str:
    """Return which modules a command has imported, the last thing that it says."""
    command = [sys.executable, "-c", PROGRAM, of, "coord", *arguments]
    environment = {"ELCHE_COORD_DIR": str(folder), "PATH": "", "PYTHONPATH": ":".join(sys.path)}
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    return found.stderr.rpartition("loaded:")[2].strip()


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["runs"], ["admit", "--", "/bin/true"], ["config"]],
    ids=lambda arguments: arguments[0],
)
def test_no_verb_needs_torch(arguments: list[str], tmp_path: object) -> None:
    """Nor lightning or numpy."""
    assert loaded_by(*arguments, of="torch,lightning,numpy", folder=tmp_path) == ""


def test_help_needs_neither_yaml_nor_the_http_server(tmp_path: object) -> None:
    """They would double the time that it takes."""
    assert loaded_by("--help", of="yaml,jsonschema,http.server,psutil", folder=tmp_path) == ""


def test_module_that_is_loaded_is_seen(tmp_path: object) -> None:
    """So that the tests above would see it."""
    assert loaded_by("config", of="yaml", folder=tmp_path) == "yaml"
