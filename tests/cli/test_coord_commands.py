"""The verbs of `elche coord` that tell runs and the registry what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lightning_elche.cli.main import main
from lightning_elche.coordination.lifecycle import RunState
from lightning_elche.coordination.registry.capacity import Machine
from lightning_elche.coordination.stopping.commands import read_command
from tests.cli.coord_runs import write_run


@pytest.fixture(autouse=True)
def coord_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "coord"
    monkeypatch.setenv("ELCHE_COORD_DIR", str(folder))
    monkeypatch.setenv("LOGNAME", "ann")
    monkeypatch.delenv("ELCHE_COORD_URL", raising=False)
    return folder


def code_of(*arguments: str) -> int:
    """Return the exit code, also of a usage error."""
    try:
        return main(["coord", *arguments])
    except SystemExit as err:
        return int(str(err.code))


@pytest.mark.parametrize("verb", ["halt", "pause", "checkpoint"])
def test_command_is_a_file_in_the_folder_of_the_run(tmp_path: Path, verb: str) -> None:
    """It says who wants it and why."""
    folder = write_run(tmp_path)
    assert code_of(verb, str(tmp_path), "--reason", "the disk is full") == 0
    command = read_command(folder, verb.upper())
    assert command is not None
    assert command.by.startswith("ann@")
    assert command.reason == "the disk is full"


def test_command_without_a_folder_is_for_the_only_run(tmp_path: Path, coord_dir: Path) -> None:
    """But `halt` and `resume`, which then mean the whole machine."""
    folder = write_run(tmp_path / "a", coord_dir=coord_dir)
    assert code_of("pause") == 0
    assert read_command(folder, "PAUSE") is not None


@pytest.mark.parametrize("state", [RunState.STOPPED, RunState.ERROR])
def test_run_that_has_ended_gets_no_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], state: RunState
) -> None:
    """It would be for the next run in that folder."""
    folder = write_run(tmp_path, state)
    assert code_of("halt", str(tmp_path)) == 3
    assert read_command(folder, "HALT") is None
    assert "has ended" in capsys.readouterr().err


def test_resume_takes_back_halt_and_pause(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And does no harm where there is nothing to take back."""
    folder = write_run(tmp_path)
    for verb in ("halt", "pause", "checkpoint"):
        code_of(verb, str(tmp_path))
    capsys.readouterr()
    assert [code_of("resume", str(tmp_path)) for _ in range(2)] == [0, 0]
    assert capsys.readouterr().out == (
        f"DONE  {folder}: HALT and PAUSE taken back\nDONE  {folder}: nothing taken back\n"
    )
    assert read_command(folder, "CHECKPOINT") is not None


def test_halted_machine_starts_nothing_until_it_is_resumed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And says who has halted it and why."""
    assert [code_of("why", "-q"), code_of("halt", "--reason", "moving house")] == [0, 0]
    assert code_of("why", "-q") == 1
    assert "REFUSED  halted: halted by ann: moving house" in capsys.readouterr().out
    assert [code_of("resume"), code_of("why", "-q")] == [0, 0]


def test_why_tells_of_every_rule(capsys: pytest.CaptureFixture[str]) -> None:
    """In the order in which they are asked, and as data."""
    assert code_of("why", "--format", "json") == 0
    decision = json.loads(capsys.readouterr().out)["decision"]
    assert [rule["code"] for rule in decision["rules"]] == [
        *("halted", "paused", "breaker_open", "queued", "reserved", "host_limit"),
        *("cluster_limit", "capacity", "threshold", "peak_hours", "backpressure"),
        *("cooldown", "rate_limited"),
    ]


def test_machine_without_a_gpu_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what to do about it."""
    cpus = Machine(ram_bytes=2**34, cores=8.0)
    monkeypatch.setattr("lightning_elche.cli.coord_registry.read_machine", lambda: cpus)
    assert [code_of("why", "-q", "--gpus", "2"), code_of("why", "-q")] == [1, 0]
    told = capsys.readouterr().out
    assert "has no GPU that a driver shows: it never fits. Ask for less, or on another" in told


@pytest.mark.parametrize("verb", ["why", "runs", "status", "halt", "reserve x", "admit -- true"])
@pytest.mark.parametrize("below", ["", "below"])
def test_folder_that_is_a_file_is_named_with_its_variable(
    coord_dir: Path, capsys: pytest.CaptureFixture[str], verb: str, below: str
) -> None:
    """Exit code 2, for each verb that looks there; so is one that would lie in a file."""
    coord_dir.write_text("")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ELCHE_COORD_DIR", str(coord_dir / below))
        assert code_of(*verb.split()) == 2
    assert capsys.readouterr().err == (
        f"elche: `ELCHE_COORD_DIR` (`folder` of the registry) must be a directory, got "
        f"{coord_dir / below}: {coord_dir} is a file. Name a directory; it is made if it is not "
        "there.\n"
    )


def test_limits_of_a_file_count(tmp_path: Path) -> None:
    """With `--config`."""
    path = tmp_path / "coordination.yaml"
    path.write_text("version: 1\nlimits: {per_host: {train: 0}}\n")
    assert [code_of("why"), code_of("why", "--config", str(path))] == [0, 1]


def test_reservation_keeps_others_out_until_it_is_released() -> None:
    """Those who ask by its name get in; a name that nobody knows is exit code 3."""
    assert code_of("reserve", "gauntlet", "--for", "60") == 0
    assert [code_of("why"), code_of("why", "--reservation", "gauntlet")] == [1, 0]
    assert [code_of("release", "gauntlet"), code_of("why")] == [0, 0]
    assert [code_of("release", "gauntlet"), code_of("reset-breaker", "kind:train")] == [3, 3]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "arguments are required: VERB"),
        (["nothing"], "invalid choice: 'nothing'"),
        (["eta"], "arguments are required: RUN"),
        (["admit"], "arguments are required: CMD"),
        (["status", ""], "must not be empty, got ''"),
        (["why", "--gpus", "-1"], "must be a whole number of at least 0, got '-1'"),
        (["why", "--vram", "much"], "must be a number of bytes such as 20GB, got 'much'"),
        (["why", "--kind", "none"], "`kind` must be one of"),
        (["watch", ".", "--every", "0"], "must be a number of seconds > 0, got '0'"),
        (["admit", "--refused-code", "256", "--", "x"], "must be at most 255, got '256'"),
        (["serve", "--port", "65536"], "must be at most 65535, got '65536'"),
        (["serve", "--host", "0.0.0.0"], "Set `ELCHE_TOKEN`"),
        (["reserve", "a", "--gpus", "0"], "`gpus` must be >= 1"),
        (["status", "-q", "-v"], "not allowed with argument"),
        (["why", "--config", "/none"], "/none does not exist"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_two(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
) -> None:
    """And the message says what is wrong."""
    monkeypatch.delenv("ELCHE_TOKEN", raising=False)
    assert code_of(*arguments) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("9000000000000000", 9000000000000000),
        ("9999.5TB", 9999500000000000),
        ("9999 tib", 10994016766132224),
    ],
)
def test_bytes_may_have_a_unit(capsys: pytest.CaptureFixture[str], text: str, number: int) -> None:
    """Of a thousand, or of 1024."""
    assert code_of("why", "--ram", text) == 1
    assert f"too_large: it needs {number} bytes of memory, " in capsys.readouterr().out


def test_registry_that_does_not_answer_is_exit_code_three(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the time-out, and without a traceback."""
    monkeypatch.setenv("ELCHE_COORD_URL", "http://127.0.0.1:9")
    assert code_of("why") == 3
    assert capsys.readouterr().err.startswith(
        "elche: The registry at http://127.0.0.1:9 does not answer: ConnectionRefusedError"
    )


def test_defaults_are_printed_as_a_file_that_is_valid(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And says the same again."""
    assert code_of("config") == 0
    text = capsys.readouterr().out
    path = tmp_path / "coordination.yaml"
    path.write_text(text)
    assert code_of("config", "--check", str(path)) == 0
    assert "max_consecutive: 5" in text
    assert str(tmp_path) not in text


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("version: 1\nstop: {grace_s: -5}\n", 2, "::$.stop.grace_s: `grace_s` must be > 0"),
        ("version: 1\nstops: {}\n", 2, "stops"),
        ("version: 1\nstop: [\n", 2, "coordination.yaml"),
        (None, 3, "does not exist"),
    ],
)
def test_file_that_is_not_valid_is_told_from_one_that_cannot_be_read(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    text: str | None,
    code: int,
    words: str,
) -> None:
    """With the place of what is wrong."""
    path = tmp_path / "coordination.yaml"
    if text is not None:
        path.write_text(text)
    assert code_of("config", "--check", str(path)) == code
    assert words in capsys.readouterr().err
