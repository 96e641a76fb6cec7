"""What docs/coord-cli.md and docs/monitoring.md say of `elche coord`."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import pytest

from lightning_elche.cli import coord
from lightning_elche.cli.coord import MODULES
from lightning_elche.cli.main import main
from lightning_elche.coordination.export import ExportConfig

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "coord-cli.md").read_text(encoding="utf-8")
MONITORING = (DOCS / "monitoring.md").read_text(encoding="utf-8")
COMMANDS = [
    line.partition("#")[0].partition("elche ")[2]
    for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
    if line
]


def test_table_has_every_verb() -> None:
    """And no other."""
    rows = re.findall(r"^\| (`elche coord .*?) \|", PAGE, re.MULTILINE)
    named = {word for row in rows for word in re.findall(r"`(?:elche coord )?([a-z-]+)", row)}
    assert named == set(MODULES)


@pytest.mark.parametrize("command", COMMANDS)
def test_command_that_is_shown_is_understood(command: str) -> None:
    """By the parser."""
    parser = argparse.ArgumentParser()
    coord.add_to(parser.add_subparsers())
    assert parser.parse_args(shlex.split(command)).verb in MODULES


def test_options_that_are_named_are_those_that_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In the help of some verb."""
    helps = []
    for verb in MODULES:
        with pytest.raises(SystemExit):
            main(["coord", verb, "--help"])
        helps.append(capsys.readouterr().out)
    known = set(re.findall(r"--[a-z-]+", "\n".join(helps)))
    assert set(re.findall(r"--[a-z-]+\b", PAGE)) - {"--lr"} <= known


def test_configuration_that_is_shown_is_valid(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `elche coord config --check` says, and a probe asks the port of the page."""
    [text, probe] = re.findall(r"```yaml\n(.*?)```", MONITORING, re.DOTALL)
    path = tmp_path / "coordination.yaml"
    path.write_text(text)
    assert main(["coord", "config", "--check", str(path)]) == 0
    assert capsys.readouterr().out == f"DONE  {path} is valid\n"
    assert "port: 9473" in text
    assert "port: 9473" in probe
    assert ExportConfig().port is None
