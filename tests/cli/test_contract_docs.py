"""What docs/contracts.md and the pre-commit hook say of `elche contract`."""

from __future__ import annotations

import re
import shlex
from datetime import date
from pathlib import Path

import pytest
import yaml

from lightning_elche.cli.main import main
from lightning_elche.contracts.grammar.loader import validate_text
from lightning_elche.contracts.rules.catalog import GROUPS, RULES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "contracts.md").read_text(encoding="utf-8")
(HOOK,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_table_of_gates_is_that_of_the_catalog() -> None:
    """With the exit codes of training."""
    rows = re.findall(r"^\| (GATE-TRAIN-\S+) \|.*\| (\d*) ?\|$", PAGE, re.MULTILINE)
    gates = {rule.id: rule.exit_code for rule in RULES.values() if rule.id.startswith("GATE-")}
    assert {gate: int(code) if code else None for gate, code in rows} == gates


def test_all_groups_are_listed() -> None:
    """Those of `--gate`."""
    assert all(f"`{group}`" in PAGE for group in GROUPS)


def test_examples_for_contracts_are_valid() -> None:
    """Appended to the default contract they give no error and no warning."""
    gate, suppress = (
        block for block in blocks("yaml") if "repo" not in block and "run:" not in block
    )
    default = (ROOT / "contracts" / "gate-train-v1.yaml").read_text(encoding="utf-8")
    text = default + gate.removeprefix("gates:\n") + suppress
    assert validate_text(text.encode(), path="a.yaml", today=date(2026, 12, 31)) == ()


@pytest.mark.parametrize(
    "verb", ["validate", "check", "compare", "diff", "explain", "schema", "new"]
)
def test_each_verb_is_in_the_table_and_has_help(verb: str) -> None:
    """`--help` ends with exit code 0."""
    assert re.search(rf"^\| `elche contract .*{verb}", PAGE, re.MULTILINE)
    with pytest.raises(SystemExit, match="0"):
        main(["contract", verb, "--help"])


def test_hook_runs_a_command_that_is_there() -> None:
    """With the default contract as the file that changed."""
    assert HOOK["language"] == "system"
    _, *arguments = shlex.split(HOOK["entry"])
    assert main([*arguments, str(ROOT / "contracts" / "gate-train-v1.yaml")]) == 0


@pytest.mark.parametrize(
    ("path", "is_meant"),
    [
        ("contracts/a.yaml", True),
        ("pkg/contracts/a-v1.yml", True),
        ("contracts/old/a.yaml", False),
        ("mycontracts/a.yaml", False),
        ("contracts/a.yaml.bak", False),
    ],
)
def test_hook_is_for_files_in_folders_of_contracts(path: str, is_meant: bool) -> None:
    """And for no others; pre-commit searches, it does not match the whole."""
    assert bool(re.search(HOOK["files"], path)) is is_meant
