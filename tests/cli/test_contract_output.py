"""Where results of `elche contract` go."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lightning_elche.cli.main import main

CONTRACT = str(Path(__file__).parents[2] / "contracts" / "gate-train-v1.yaml")
VALIDATE = ["contract", "validate", CONTRACT]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_result_goes_to_a_file_on_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Standard output stays empty; a line on standard error tells the outcome."""
    target = tmp_path / "report.json"
    assert main([*VALIDATE, "--format", "json", "-o", str(target)]) == 0
    assert json.loads(target.read_text(encoding="utf-8"))["verdict"] == "PASS"
    assert capsys.readouterr() == ("", "elche: PASS: 0 errors, 0 warnings, 0 notes\n")


def test_text_goes_to_a_file_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is no report needs no line on standard error."""
    target = tmp_path / "mine.yaml"
    assert main(["contract", "new", "-o", str(target)]) == 0
    _, _, rules = Path(CONTRACT).read_text(encoding="utf-8").partition("\n")
    assert target.read_text(encoding="utf-8").endswith(f"\n{rules}")
    assert capsys.readouterr() == ("", "")


def test_quiet_says_nothing_where_all_is_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither on standard output nor, with a file, on standard error."""
    assert main([*VALIDATE, "-q"]) == 0
    assert main([*VALIDATE, "-q", "-o", str(tmp_path / "report.txt")]) == 0
    assert capsys.readouterr() == ("", "")


def test_file_that_cannot_be_written_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2: the outcome would be lost."""
    assert main([*VALIDATE, "-o", "/nowhere/report.txt"]) == 2
    assert capsys.readouterr().err == "elche: /nowhere/report.txt does not exist.\n"


@pytest.mark.parametrize(
    ("verb", "path"), [("check", "nowhere"), ("compare", "nowhere x"), ("diff", "nowhere x")]
)
def test_what_cannot_be_read_is_told_to_programs_too(
    verb: str, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the format that they have asked for, beside the line on standard error."""
    assert main(["contract", verb, *path.split(), "--format", "json"]) == 3
    said = capsys.readouterr()
    report = json.loads(said.out)
    found = report["findings"][0]
    assert (report["subject"], report["verdict"], found["rule"]) == (path, "FAIL", "CT-READ")
    assert said.err == f"elche: {found['message']}\n"


def test_what_cannot_be_read_is_an_annotation(capsys: pytest.CaptureFixture[str]) -> None:
    """As text it is on standard error only."""
    assert main(["contract", "check", "nowhere", "--format", "github"]) == 3
    assert capsys.readouterr().out.startswith("::error file=nowhere,title=CT-READ::`RUN_DIR` ")
    assert main(["contract", "check", "nowhere"]) == 3
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["json", "sarif"])
def test_json_formats_are_json(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """And nothing else is on standard output."""
    assert main([*VALIDATE, "--format", name]) == 0
    assert isinstance(json.loads(capsys.readouterr().out), dict)


def test_junit_is_xml(capsys: pytest.CaptureFixture[str]) -> None:
    """With a case for the file."""
    assert main([*VALIDATE, "--format", "junit"]) == 0
    assert ElementTree.fromstring(capsys.readouterr().out.encode()).get("tests") == "1"


@pytest.mark.parametrize(("name", "begin"), [("github", "elche contract: "), ("markdown", "**")])
def test_text_formats_end_with_one_line_end(
    name: str, begin: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that is appended to stays in order."""
    assert main([*VALIDATE, "--format", name]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{begin}PASS")
    assert out.endswith("\n")


@pytest.mark.parametrize(("variable", "is_colored"), [("", True), ("1", False)])
def test_colors_are_for_terminals_unless_refused(
    variable: str, is_colored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NO_COLOR refuses them if it is not empty."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("NO_COLOR", variable)
    assert main(VALIDATE) == 0
    assert ("\x1b[32mPASS" in terminal.getvalue()) is is_colored


def test_colors_stay_out_of_pipes(capsys: pytest.CaptureFixture[str]) -> None:
    """What is captured here is no terminal."""
    assert main(VALIDATE) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_stream_that_lacks_a_letter_gets_an_escape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name with an umlaut is no reason to fail where output is ASCII."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    assert main(["contract", "validate", str(tmp_path / "gr\u00fcn.yaml")]) == 3
    out.flush()
    assert b"gr\\xfcn.yaml" in out.buffer.getvalue()  # type: ignore[attr-defined]
