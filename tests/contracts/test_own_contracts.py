"""The contracts of this repository: they are valid, short, and what they name exists."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from lightning_elche.contracts.grammar.loader import (
    DEFAULT_TEXT,
    default_contract,
    load_contract,
    parse_contract,
)
from lightning_elche.contracts.grammar.yamltree import read_document
from lightning_elche.contracts.verdicts import Severity

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "contracts"
OWN = sorted(path for path in FOLDER.glob("*.yaml") if b"dialect: elche/1" in path.read_bytes())


def test_default_contract_is_the_file_that_users_copy() -> None:
    """The file of the package and the one at the top have the same bytes and meaning."""
    text = (FOLDER / "gate-train-v1.yaml").read_bytes()
    assert text == DEFAULT_TEXT
    assert parse_contract(text, path=None) == default_contract()


def falsifiers(path: Path) -> list[str]:
    """Return the tests that a contract names."""
    data = read_document(path.read_bytes(), path=path.name).value
    assert isinstance(data, dict)
    entries = [*data["gates"], *data.get("invariants", ())]
    return [entry["falsifier"] for entry in entries if "falsifier" in entry]


def has_test(test: str) -> bool:
    """Return whether a test of this id exists, by the text of its file."""
    file, _, name = test.partition("::")
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return any(isinstance(node, ast.FunctionDef) and node.name == name for node in tree.body)


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_own_contract_is_valid_without_a_finding(path: Path) -> None:
    """There are neither errors nor warnings in our contracts."""
    findings = load_contract(path).findings
    assert [one for one in findings if one.severity is not Severity.NOTE] == []


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_own_contract_has_at_most_sixty_lines_and_a_schema(path: Path) -> None:
    """A contract is read in one go, and editors find its schema by the first line."""
    lines = path.read_text(encoding="utf-8").splitlines()
    modeline, _, schema = lines[0].partition("$schema=")
    assert len(lines) <= 60
    assert modeline == "# yaml-language-server: "
    assert (FOLDER / schema).is_file()


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_falsifiers_of_own_contracts_exist(path: Path) -> None:
    """Every test that a contract names is there."""
    assert [test for test in falsifiers(path) if not has_test(test)] == []


@pytest.mark.parametrize(
    ("name", "num_gates"), [("cadence-v1", 11), ("partition-v1", 13), ("replay-v1", 11)]
)
def test_contract_of_the_library_names_a_test_for_every_gate(name: str, num_gates: int) -> None:
    """A gate of a library is proved by a test of its own and by nothing else."""
    path = FOLDER / f"{name}.yaml"
    contract = load_contract(path)
    assert contract.kind == "library"
    assert len(set(falsifiers(path))) == len(contract.gates) == num_gates


def test_missing_falsifier_is_found() -> None:
    """A test that does not exist is told from one that does."""
    here = "tests/contracts/test_own_contracts.py"
    assert has_test(f"{here}::test_missing_falsifier_is_found")
    assert not has_test(f"{here}::test_that_does_not_exist")
