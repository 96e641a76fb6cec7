"""Where results of `elche checkpoint` go, what it loads, and what docs/checkpoint-cli.md says."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_elche.cli.main import main
from lightning_elche.partition.replay_file import ReplaySegment, SegmentWriter
from tests.partition.states import make_snapshot, make_store

PAGE = (Path(__file__).parents[2] / "docs" / "checkpoint-cli.md").read_text(encoding="utf-8")
VERBS = ["verify", "ls", "show", "diff", "replay", "gc", "export"]
PROGRAM = """
import sys
from lightning_elche.cli.main import main
try:
    for verb in sys.argv[2].split(";"):
        main(["checkpoint", *verb.split()])
except SystemExit:
    pass
loaded = sorted(set(sys.argv[1].split(",")) & set(sys.modules))
print(", ".join(loaded), file=sys.stderr)
"""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make_store(tmp_path / "root").save(make_snapshot(1)).path


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = make_store(tmp_path / "bad,root").save(make_snapshot(1)).path
    (path / "tree.json").unlink()
    return path


def loaded_by(commands: str, of: str) -> str:
    """Return which modules some commands have imported, and whatever went wrong."""
    command = [sys.executable, "-c", PROGRAM, of, commands]
    return subprocess.run(command, capture_output=True, text=True, timeout=60).stderr.strip()


def test_verbs_run_without_torch(path: Path, tmp_path: Path) -> None:
    """Nor lightning; a checkpoint can be verified where it is stored."""
    commands = (
        f"verify {path} --deep;ls {path.parent} --all;show {path} --tree;diff {path} {path};"
        f"gc {path.parent};replay {path.parent} {path.parent};export {path} --to oms {tmp_path}/out"
    )
    record = path.parent / "replay" / "segment-0000.jsonl"
    record.parent.mkdir()
    with record.open("wb") as file:
        SegmentWriter(ReplaySegment(segment="segment-0000"), file.write)
    assert loaded_by(commands, "torch,lightning") == ""
    assert (tmp_path / "out").exists()


def test_help_needs_no_numpy() -> None:
    """It would take several times as long."""
    assert loaded_by("--help", "numpy,yaml,jsonschema,torch") == ""


def test_json_has_outcome_and_problems(bad: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And nothing else is on standard output."""
    assert main(["checkpoint", "verify", str(bad), "--format", "json"]) == 1
    found = json.loads(capsys.readouterr().out)
    message = f"checkpoint {bad} is incomplete: tree.json is missing"
    assert (found["command"], found["exit_code"]) == ("verify", 1)
    assert found["problems"] == [{"path": str(bad), "kind": "Incomplete", "message": message}]


def test_json_tells_of_a_command_that_could_not_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that a program need not read standard error."""
    assert main(["checkpoint", "ls", str(tmp_path / "nowhere"), "--format", "json"]) == 3
    captured = capsys.readouterr()
    assert json.loads(captured.out)["problems"][0]["kind"] == "FileNotFoundError"
    assert captured.err.startswith(f"elche: {tmp_path}/nowhere does not exist. Name a checkpoint")


def test_problems_are_annotations_for_github(bad: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A comma in a path is escaped."""
    assert main(["checkpoint", "verify", str(bad), "--format", "github"]) == 1
    assert capsys.readouterr().out == (
        f"::error file={str(bad).replace(',', '%2C')},title=Incomplete::"
        f"checkpoint {bad} is incomplete: tree.json is missing\n"
        "elche checkpoint verify: 1 problem\n"
    )


def test_result_goes_to_a_file_on_request(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Standard output stays empty."""
    target = tmp_path / "report.txt"
    assert main(["checkpoint", "verify", str(path), "-o", str(target)]) == 0
    assert target.read_text(encoding="utf-8") == "OK  step-00000001\n"
    assert capsys.readouterr() == ("", "")


def test_file_that_cannot_be_written_is_an_error(path: Path) -> None:
    """Exit code 2: the outcome would be lost."""
    assert main(["checkpoint", "verify", str(path), "-o", "/nowhere/report"]) == 2


def test_quiet_says_nothing_where_all_is_well(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not even what was checked."""
    for arguments in (["verify", path.parent], ["diff", path, path], ["gc", path.parent]):
        assert main(["checkpoint", *map(str, arguments), "-q"]) == 0
    assert capsys.readouterr() == ("", "")


def test_quiet_does_not_hide_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On standard error."""
    assert main(["checkpoint", "verify", str(tmp_path), "-q"]) == 3
    assert capsys.readouterr().err.startswith(f"elche: no checkpoint found at {tmp_path}. Name a")


@pytest.mark.parametrize(("variable", "is_colored"), [("", True), ("1", False)])
def test_colors_are_for_terminals_unless_refused(
    path: Path, variable: str, is_colored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NO_COLOR refuses them if it is not empty."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("NO_COLOR", variable)
    assert main(["checkpoint", "verify", str(path)]) == 0
    assert ("\x1b[32mOK\x1b[0m" in terminal.getvalue()) is is_colored


def test_stream_that_lacks_a_letter_gets_an_escape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name with an umlaut is no reason to fail where output is ASCII."""
    path = make_store(tmp_path / "gr\u00fcn").save(make_snapshot(1)).path
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    assert main(["checkpoint", "diff", str(path), str(path)]) == 0
    out.flush()
    assert b"gr\\xfcn" in out.buffer.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_is_in_the_table_and_has_help(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every option of its help is on the page."""
    assert re.search(rf"^\| `elche checkpoint {verb} ", PAGE, re.MULTILINE)
    with pytest.raises(SystemExit, match="0"):
        main(["checkpoint", verb, "--help"])
    options = set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help"}
    assert {option for option in options if option not in PAGE} == set()
