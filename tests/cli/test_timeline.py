"""The verb `elche timeline`."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_elche.cli.main import main
from tests.timeline.recorded import Share, record_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two ranks, the second of which waits for data."""
    return record_run(tmp_path / "run", shares=(Share(), Share(compute=500, input=400)))


def call(*arguments: object) -> int:
    return main(["timeline", *map(str, arguments)])


def test_verdicts_and_a_table_are_printed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each rank, in percent of its time."""
    assert call(run) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Rank 1 (cpu on box) is input-bound: 40.0% of its time")
    assert lines[-1].split() == [
        "1",
        "6.5",
        "46.2%",
        "36.9%",
        "4.6%",
        "1.8%",
        "2.8%",
        "7.7%",
        "50.0%",
    ]


def test_result_as_json_names_ranks_and_causes(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """For other programs."""
    assert call(run, "--format", "json") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["schema"], result["exit_code"]) == ("elche/timeline-report-v1", 0)
    assert result["ranks"][1]["seconds"]["input"] == pytest.approx(2.4)
    assert [verdict["rank"] for verdict in result["verdicts"]] == [1, 0, 1]


def test_trace_page_and_picture_are_written(run: Path, tmp_path: Path) -> None:
    """Each to the file that was named."""
    pytest.importorskip("matplotlib")
    trace, page, png = (tmp_path / name for name in ("t.json.gz", "p.html", "p.png"))
    assert call(run, "-o", trace, "--html", page, "--png", png) == 0
    assert json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert png.read_bytes().startswith(b"\x89PNG")


def test_profile_is_merged_into_the_trace(run: Path, tmp_path: Path) -> None:
    """Its events lie beside those of the ranks."""
    profile, trace = tmp_path / "profile.json", tmp_path / "t.json"
    event = {"name": "aten::mm", "ph": "X", "pid": 7, "tid": 8, "ts": 5.0, "dur": 1.0}
    profile.write_text(json.dumps({"traceEvents": [event]}))
    assert call(run, "-o", trace, "--merge", profile) == 0
    assert {"aten::mm", "window"} <= {
        e["name"] for e in json.loads(trace.read_text())["traceEvents"]
    }


@pytest.mark.parametrize(("ratio", "code"), [("0.49", 1), ("0.51", 0)])
def test_idle_rank_fails_the_gate(
    run: Path, ratio: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rank 1 idles half of its time, which is said."""
    assert call(run, "--fail-idle", ratio) == code
    told = "elche: Rank 1 idles 50.0% of its time, more than 49.0%.\n"
    assert capsys.readouterr().err == (told if code else "")


def test_workflow_is_told_what_is_wrong(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In commands of GitHub Actions, with a summary."""
    assert call(run, "--format", "github", "--fail-idle", "0.49") == 1
    assert capsys.readouterr().out.splitlines() == [
        f"::error title=Idle {run}::Rank 1 idles 50.0%25 of its time, more than 49.0%25.",
        "elche timeline: 1 problem",
    ]


def test_quiet_leaves_out_the_table(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What held ranks up is shown, and nothing of a run that nothing held up."""
    assert call(run, "-q") == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert call(record_run(run / "calm", shares=(Share(compute=950, wait=0),)), "-q") == 0
    assert capsys.readouterr().out == ""


def test_verbose_tells_of_each_rank(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What three have in common is one line otherwise."""
    run = record_run(tmp_path, shares=(Share(compute=600, input=300, wait=0, transfer=0),) * 3)
    assert call(run, "-q") == 0
    assert capsys.readouterr().out.startswith("3 ranks are input-bound, most of all rank 0")
    assert call(run, "-v") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" (")[0] for line in lines[:3]] == ["Rank 0", "Rank 1", "Rank 2"]
    assert lines[-6] == "Clock of rank 2: that of the first one"


def test_folder_without_events_is_three(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The message says how to get some."""
    assert call(tmp_path) == 3
    assert "with event logs in elche/events" in capsys.readouterr().err


def test_error_as_json_is_an_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With its kind and its message."""
    assert call(tmp_path, "--format", "json") == 3
    [problem] = json.loads(capsys.readouterr().out)["problems"]
    assert (problem["kind"], problem["path"]) == ("NoEvents", str(tmp_path))


def test_missing_rank_is_four(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the other one did is shown all the same."""
    (run / "elche" / "events" / "rank1.jsonl").unlink()
    assert call(run) == 4
    assert "There is no event log of rank 1" in capsys.readouterr().out


def test_part_of_a_run_is_shown(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From one second after its begin to another."""
    assert call(run, "--since", "1.5", "--until", "3.5") == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()[-2:]] == ["2.0"] * 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--since", "9"), "`since` and `until` must be within the 6.5 seconds"),
        (("--detail", "0:1"), "need a trace to go into"),
        (("-o", "t.json", "--detail", "0:1"), "Train with CadenceMonitor(detail_steps=...)"),
    ],
)
def test_what_cannot_be_done_is_two(
    run: Path,
    tmp_path: Path,
    arguments: tuple[str, ...],
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the reason, and without a file."""
    monkeypatch.chdir(tmp_path)
    assert call(run, *arguments) == 2
    assert words in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    "arguments", [("--detail", "2:1"), ("--detail", "a:b"), ("--fail-idle", "2"), ("--since", "x")]
)
def test_arguments_out_of_range_are_refused(run: Path, arguments: tuple[str, str]) -> None:
    """By the parser, as bad usage."""
    with pytest.raises(SystemExit, match="2"):
        call(run, *arguments)


def test_command_does_without_torch(run: Path) -> None:
    """It runs where logs were copied to."""
    code = (
        f"import sys; from lightning_elche.cli.main import main; main(['timeline', {str(run)!r}]); "
        "print({'torch', 'lightning', 'matplotlib', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "set()"
