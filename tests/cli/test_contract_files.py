"""The verbs `validate`, `diff`, `schema` and `new` of `elche contract`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lightning_elche.cli.main import main

ROOT = Path(__file__).parents[2]
DEFAULT = (ROOT / "contracts" / "gate-train-v1.yaml").read_text(encoding="utf-8")


@pytest.fixture
def valid(tmp_path: Path) -> Path:
    path = tmp_path / "valid.yaml"
    path.write_text(DEFAULT, encoding="utf-8")
    return path


@pytest.fixture
def invalid(tmp_path: Path) -> Path:
    path = tmp_path / "invalid.yaml"
    text = DEFAULT.replace("\nconvergence:", "\nconvergence: {}\nconvergence:")
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def warned(tmp_path: Path) -> Path:
    path = tmp_path / "warned.yaml"
    path.write_text(DEFAULT.replace("GATE-TRAIN-010", "GATE-MY-010"), encoding="utf-8")
    return path


def test_default_contract_is_valid(valid: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0, without warnings."""
    assert main(["contract", "validate", str(valid)]) == 0
    assert capsys.readouterr().out == "PASS: 0 errors, 0 warnings, 0 notes\n"


def test_invalid_contract_is_shown_with_its_place(
    invalid: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2; both keys are named by line and column."""
    assert main(["contract", "validate", str(invalid)]) == 2
    first = capsys.readouterr().out.splitlines()[0]
    line = DEFAULT.split("\nconvergence:")[0].count("\n") + 3
    assert first.startswith(f"{invalid}:{line}:1: CT-YAML ")


@pytest.mark.parametrize(("arguments", "code"), [([], 0), (["--strict"], 2)])
def test_warning_fails_only_strictly(warned: Path, arguments: list[str], code: int) -> None:
    """An unknown gate is no error, unless warnings are."""
    assert main(["contract", "validate", str(warned), *arguments]) == code


def test_missing_file_is_a_finding_and_exit_code_three(
    valid: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The other files are checked all the same."""
    assert main(["contract", "validate", "nowhere.yaml", str(valid)]) == 3
    assert capsys.readouterr().out.startswith("nowhere.yaml: CT-READ No such file or directory\n")


def test_invalid_contract_comes_before_a_missing_one(invalid: Path) -> None:
    """Two is the first exit code that applies."""
    assert main(["contract", "validate", "nowhere.yaml", str(invalid)]) == 2


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["fifo", "folder"])
def test_what_is_no_file_is_not_opened(tmp_path: Path, kind: str) -> None:
    """A FIFO that nobody writes to would never end."""
    path = tmp_path / "odd.yaml"
    _ = os.mkfifo(path) if kind == "fifo" else path.mkdir()
    assert main(["contract", "validate", str(path)]) == 3


def test_all_files_are_named_in_the_report(
    valid: Path, warned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also those with nothing to say of."""
    main(["contract", "validate", "--format", "json", str(valid), str(warned)])
    report = json.loads(capsys.readouterr().out)
    assert report["facts"]["files"] == [str(valid), str(warned)]


def test_no_file_is_wrong_usage() -> None:
    """Nothing would be checked."""
    with pytest.raises(SystemExit, match="2"):
        main(["contract", "validate"])


def test_equal_contracts_do_not_differ(valid: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No version bump."""
    assert main(["contract", "diff", str(valid), str(valid)]) == 0
    assert capsys.readouterr().out.startswith("version bump: none\n")


@pytest.mark.parametrize(("arguments", "code"), [([], 1), (["--allow-weaker"], 0)])
def test_weaker_contract_is_refused_unless_allowed(
    valid: Path, tmp_path: Path, arguments: list[str], code: int
) -> None:
    """Three epochs of patience forgive more than two."""
    new = tmp_path / "new.yaml"
    new.write_text(DEFAULT.replace("patience_epochs: 2", "patience_epochs: 3"), encoding="utf-8")
    assert main(["contract", "diff", str(valid), str(new), *arguments]) == code


def test_weaker_rule_is_named(
    valid: Path, warned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A gate that is gone, with the version to choose."""
    main(["contract", "diff", str(valid), str(warned)])
    out = capsys.readouterr().out
    assert f"{warned}: GATE-TRAIN-010 weaker: " in out
    assert "version bump: major\n" in out


def test_tighter_contract_passes(valid: Path, tmp_path: Path) -> None:
    """One epoch of patience forgives less than two."""
    new = tmp_path / "new.yaml"
    new.write_text(DEFAULT.replace("patience_epochs: 2", "patience_epochs: 1"), encoding="utf-8")
    assert main(["contract", "diff", str(valid), str(new)]) == 0


def test_invalid_contract_cannot_be_compared(
    valid: Path, invalid: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, with what is wrong, in the format that was asked for."""
    assert main(["contract", "diff", "--format", "json", str(valid), str(invalid)]) == 2
    assert json.loads(capsys.readouterr().out)["findings"][0]["rule"] == "CT-YAML"


def test_missing_contract_cannot_be_compared(
    valid: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 3, and the reason on standard error."""
    assert main(["contract", "diff", str(valid), "nowhere.yaml"]) == 3
    assert "nowhere.yaml" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "name"), [([], "gate-train-v1"), (["--dialect", "open"], "contract-v1")]
)
def test_schema_is_printed(
    arguments: list[str], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As JSON, and one for contracts found in the wild."""
    assert main(["contract", "schema", *arguments]) == 0
    folder = ROOT / "lightning_elche" / "contracts" / "schemas"
    shipped = json.loads((folder / f"{name}.schema.json").read_text(encoding="utf-8"))
    assert json.loads(capsys.readouterr().out) == shipped


def test_new_prints_the_default_contract(capsys: pytest.CaptureFixture[str]) -> None:
    """As in `contracts/`, but for where the schema is: what `elche contract schema` printed."""
    assert main(["contract", "new"]) == 0
    modeline, rules = capsys.readouterr().out.split("\n", 1)
    assert modeline == "# yaml-language-server: $schema=gate-train-v1.schema.json"
    assert rules == DEFAULT.split("\n", 1)[1]
