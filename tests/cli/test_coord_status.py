"""The verbs of `elche coord` that look at runs."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lightning_elche.cli.main import main
from lightning_elche.coordination.lifecycle import RunState
from tests.cli.coord_runs import write_run

ETA = {"host": {"status": {"run": {"eta_seconds": 7200.0, "eta_p90_seconds": 9000.0}}}}


@pytest.fixture(autouse=True)
def coord_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "coord"
    monkeypatch.setenv("ELCHE_COORD_DIR", str(folder))
    return folder


def run_command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["coord", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize(
    ("state", "ok", "age_s", "code", "word"),
    [
        (RunState.RUNNING, True, 0.0, 0, "HEALTHY"),
        (RunState.PAUSED, True, 9.0, 0, "HEALTHY"),
        (RunState.RUNNING, False, 0.0, 1, "UNHEALTHY"),
        (RunState.RUNNING, True, 11.0, 4, "STALE"),
        (RunState.STOPPED, True, 999.0, 1, "STOPPED"),
        (RunState.ERROR, False, 999.0, 1, "ERROR"),
    ],
)
def test_status_tells_how_a_run_is(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    state: RunState,
    ok: bool,
    age_s: float,
    code: int,
    word: str,
) -> None:
    """By exit code and by a word; what has ended is not stale."""
    write_run(tmp_path / "run", state, ok=ok, age_s=age_s)
    found, out, err = run_command(capsys, "status", str(tmp_path / "run"))
    assert (found, out.split()[0], err) == (code, word, "")
    assert f"{tmp_path}/run/elche  {state.name}, step 7, epoch 2, " in out


def test_status_without_a_folder_is_that_of_the_only_run(
    tmp_path: Path, coord_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With none it is exit code 3, with two it is wrong usage that names both."""
    assert run_command(capsys, "status")[::2] == (
        3,
        "elche: No run with Coordination is known to this machine. Set `ELCHE_COORD_DIR` for those "
        "that should be, and here. Or name the folder in which it logs.\n",
    )
    write_run(tmp_path / "a", coord_dir=coord_dir)
    assert run_command(capsys, "status")[0] == 0
    write_run(tmp_path / "b", coord_dir=coord_dir)
    code, _, err = run_command(capsys, "status")
    assert code == 2
    assert f"`RUN` must be named, as there are several: {tmp_path}/a/elche, {tmp_path}/b" in err


@pytest.mark.parametrize("verb", ["status", "eta", "watch", "pause", "checkpoint", "halt"])
def test_folder_without_a_run_is_exit_code_three(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    """For each verb that takes one."""
    code, out, err = run_command(capsys, verb, str(tmp_path))
    assert (code, out) == (3, "")
    assert err == (
        f"elche: {tmp_path} has no elche/status.json. Name the folder in which a run logs.\n"
    )


@pytest.mark.parametrize("content", [b"", b"[]", b"{"])
def test_status_that_cannot_be_understood_is_exit_code_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    """With the name of the file."""
    (write_run(tmp_path) / "status.json").write_bytes(content)
    code, _, err = run_command(capsys, "status", str(tmp_path))
    assert code == 2
    assert f"{tmp_path}/elche/status.json is no JSON" in err


def test_runs_lists_all_of_this_machine(
    tmp_path: Path, coord_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The worst decides on the exit code: one that is not healthy, then one that is stale."""
    assert run_command(capsys, "runs")[0] == 3
    write_run(tmp_path / "a", coord_dir=coord_dir)
    assert run_command(capsys, "runs")[0] == 0
    write_run(tmp_path / "b", age_s=60.0, coord_dir=coord_dir)
    assert run_command(capsys, "runs")[0] == 4
    write_run(tmp_path / "c", ok=False, coord_dir=coord_dir)
    code, out, _ = run_command(capsys, "runs")
    assert code == 1
    words = [line.split()[0] for line in out.splitlines()]
    assert words == ["HEALTHY", "STALE", "as", "UNHEALTHY", "as"]
    assert "HEALTHY" not in run_command(capsys, "runs", "-q")[1].split()


def test_run_whose_process_is_gone_is_not_healthy(
    tmp_path: Path, coord_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Although it said so a moment ago, as after `kill -9`."""
    folder = write_run(tmp_path / "a", coord_dir=coord_dir)
    [entry] = (coord_dir / "runs").iterdir()
    told = json.loads(entry.read_text())
    entry.write_text(json.dumps({**told, "process": {**told["process"], "started": "0"}}))
    for command in (("runs",), ("status", str(folder))):
        code, out, _ = run_command(capsys, *command)
        assert (code, out.split()[0]) == (1, "GONE")


def test_json_holds_all_that_the_run_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the exit code, for programs that see only the text."""
    write_run(tmp_path, ok=False)
    code, out, _ = run_command(capsys, "status", str(tmp_path), "--format", "json")
    told = json.loads(out)
    assert (code, told["exit_code"], told["run"]["verdict"]) == (1, 1, "UNHEALTHY")
    assert told["run"]["status"]["reason"] == "as the test wants it"


def test_github_has_one_command_for_each_run_that_is_not_healthy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And a summary."""
    write_run(tmp_path, ok=False)
    out = run_command(capsys, "status", str(tmp_path), "--format", "github")[1]
    assert out.startswith("::error title=UNHEALTHY ")
    assert out.endswith("\nelche coord status: 1 problem\n")


def test_verbose_shows_every_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With its path."""
    write_run(tmp_path, components=ETA)
    out = run_command(capsys, "status", str(tmp_path), "-v")[1]
    assert "  components.host.status.run.eta_seconds: 7200\n" in out


def test_eta_counts_from_when_the_run_told_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Here five seconds ago."""
    write_run(tmp_path, components=ETA, age_s=5.0)
    code, out, _ = run_command(capsys, "eta", str(tmp_path), "--format", "json")
    told = json.loads(out)["eta_s"]
    assert code == 0
    assert (round(told["median"]), round(told["p90"])) == (7195, 8995)
    out = run_command(capsys, "eta", str(tmp_path))[1]
    assert out == f"{tmp_path}/elche ends in 2 h 00 min, 9 of 10 within 2 h 30 min\n"


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (RunState.RUNNING, "has told too little yet to say when it ends."),
        (RunState.STOPPED, "has ended."),
    ],
)
def test_eta_needs_a_run_that_knows_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], state: RunState, reason: str
) -> None:
    """Else it is exit code 4."""
    write_run(tmp_path, state)
    code, _, err = run_command(capsys, "eta", str(tmp_path))
    assert (code, err) == (4, f"elche: {tmp_path}/elche {reason}\n")


def test_watch_shows_one_frame_where_nobody_looks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """State, parts and the latest decisions, in characters that move no cursor."""
    decision = {"at": 0.0, "kind": "anchor", "old": 8, "new": 12, "why": "\x1b[2J"}
    write_run(tmp_path, components=ETA, decisions=[decision])
    code, out, _ = run_command(capsys, "watch", str(tmp_path))
    lines = out.splitlines()
    assert (code, lines[0]) == (0, "HEALTHY")
    assert "host          run.eta_seconds=7200 run.eta_p90_seconds=9000" in lines
    assert lines[-1].endswith("  anchor  old=8 new=12 why=\\x1b[2J")


@pytest.mark.slow
def test_watch_follows_a_run_on_a_terminal_until_it_ends(tmp_path: Path) -> None:
    """Each frame over the one before, also on a terminal that does not know its size."""
    write_run(tmp_path)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "lightning_elche"]
    command += ["coord", "watch", str(tmp_path), "--every", "0.05"]
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=theirs) as watching:
        os.close(theirs)
        try:
            shown = read_until(b"RUNNING", ours)
            write_run(tmp_path, RunState.STOPPED)
            read_until(b"STOPPED", ours)
            assert watching.wait(timeout=60.0) == 0
        finally:
            watching.kill()
            os.close(ours)
    assert b"\x1b[H" in shown


def read_until(word: bytes, terminal: int, *, timeout_s: float = 60.0) -> bytes:
    """Return what a terminal showed up to and with a word."""
    shown, ends_at = b"", time.monotonic() + timeout_s
    while word not in shown:
        assert time.monotonic() < ends_at, f"There is no {word!r} in {shown[-2000:]!r}."
        if select.select([terminal], [], [], 1.0)[0]:
            shown += os.read(terminal, 4096)
    return shown
