"""The verbs `check` and `compare` of `elche contract`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lightning_elche.cli.main import main
from tests.cli.run_folders import change_line, write_healthy_run

ROOT = Path(__file__).parents[2]
DEFAULT = ROOT / "contracts" / "gate-train-v1.yaml"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_healthy_run(tmp_path / "run")


@pytest.fixture
def diverged(run: Path) -> Path:
    """A run whose validation loss is more than twice that of the epoch before."""
    metadata = run / "ckpt" / "epoch-001.metadata.json"
    text = metadata.read_text(encoding="utf-8")
    metadata.write_text(text.replace('"val_loss": 2.0', '"val_loss": 5.5'), encoding="utf-8")
    return run


def check(run: Path, *arguments: str) -> int:
    return main(["contract", "check", str(run), *arguments])


def verdicts(capsys: pytest.CaptureFixture[str], run: Path, *arguments: str) -> dict[str, str]:
    check(run, "--format", "json", *arguments)
    gates: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["gates"]
    return {gate["id"]: gate["verdict"] for gate in gates}


def test_healthy_run_passes(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All gates that one run can tell of, and the report says by which contract."""
    assert check(run) == 0
    out = capsys.readouterr().out
    assert out.count("PASS  ") == 10
    assert "contract: C-GATE-TRAIN 1.0.0, the run's own copy\n" in out


def test_verbose_names_everything(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It never fails where the short text does not."""
    assert check(run, "-v") == 0
    assert "GATE-TRAIN-EXHAUST" in capsys.readouterr().out


def test_diverged_run_fails(diverged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1, with the reason and what to do."""
    assert check(diverged) == 1
    out = capsys.readouterr().out
    assert "GATE-TRAIN-005: DIVERGENCE at epoch 1: val_loss 5.5 > 2.0 x 2.5 (ratio 2.2)" in out
    assert "Lower the learning rate" in out


def test_places_can_be_opened_from_the_working_directory(
    diverged: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A path begins with the folder of the run as seen from here."""
    monkeypatch.chdir(diverged.parent)
    check(diverged, "--format", "json")
    report = json.loads(capsys.readouterr().out)
    places = {one["path"] for gate in report["gates"] for one in gate["findings"]}
    assert "run/ckpt/epoch-001.metadata.json" in places


def test_place_elsewhere_keeps_the_folder_as_given(
    diverged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is not below the working directory."""
    check(diverged, "--format", "github")
    assert f"::error file={diverged}/ckpt/epoch-001.metadata.json" in capsys.readouterr().out


def test_closed_checkpoints_leave_the_gate_open(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 4 with `--no-deep`, unless that is allowed."""
    assert check(run, "--no-deep") == 4
    assert check(run, "--no-deep", "--allow-indeterminate") == 0
    capsys.readouterr()
    assert verdicts(capsys, run, "--no-deep")["GATE-TRAIN-002"] == "INDETERMINATE"


def test_swapped_checkpoint_is_found_by_its_digest(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The optimizer states of another epoch are not those of the metadata."""
    first, second = (run / "ckpt" / f"epoch-00{epoch}.ckpt" for epoch in (0, 1))
    second.write_bytes(first.read_bytes())
    assert verdicts(capsys, run)["GATE-TRAIN-002"] == "FAIL"


def test_gates_are_selected_by_group_and_id(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No other is judged."""
    chosen = verdicts(capsys, run, "--gate", "train-log", "GATE-TRAIN-005")
    assert chosen == {"GATE-TRAIN-001": "PASS", "GATE-TRAIN-005": "PASS"}


def test_undeclared_gate_alone_is_no_pass(run: Path) -> None:
    """Nothing was checked: exit code 4."""
    assert check(run, "--gate", "GATE-TRIAN-005") == 4


def test_unknown_name_of_a_gate_is_wrong_usage(run: Path) -> None:
    """Exit code 2."""
    assert check(run, "--gate", "non-divergense") == 2


def test_other_contract_is_named_as_such(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It decides, and that the run was made under another one is a warning."""
    strict = tmp_path / "strict.yaml"
    text = DEFAULT.read_text(encoding="utf-8").replace(
        "target_val_loss: 2.2", "target_val_loss: 1.0"
    )
    strict.write_text(text, encoding="utf-8")
    assert check(run, "--contract", str(strict)) == 1
    out = capsys.readouterr().out
    assert "EV-CONTRACT-DRIFT warning:" in out
    assert f"contract: C-GATE-TRAIN 1.0.0, {strict}\n" in out


@pytest.mark.parametrize(("arguments", "code"), [([], 0), (["--strict"], 1)])
def test_warning_fails_only_strictly(
    run: Path, tmp_path: Path, arguments: list[str], code: int
) -> None:
    """Here that the contract has one more line."""
    other = tmp_path / "other.yaml"
    other.write_text(DEFAULT.read_text(encoding="utf-8") + "# more\n", encoding="utf-8")
    assert check(run, "--contract", str(other), *arguments) == code


def test_invalid_contract_comes_before_everything(
    diverged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and where it is wrong, be it given or the run's own copy."""
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: 1\na: 2\n", encoding="utf-8")
    assert check(diverged, "--contract", str(broken)) == 2
    assert f"{broken}:2:1: CT-YAML" in capsys.readouterr().out
    (diverged / "contract.yaml").write_bytes(broken.read_bytes())
    assert check(diverged) == 2


@pytest.mark.parametrize("arguments", [["--contract", "nowhere.yaml"], []])
def test_missing_file_is_exit_code_three(
    run: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The contract that was named, or the copy of the run."""
    (run / "contract.yaml").unlink()
    assert check(run, *arguments) == 3
    assert capsys.readouterr().err.startswith("elche: ")


def test_missing_run_is_exit_code_three(tmp_path: Path) -> None:
    """There is nothing to judge."""
    assert check(tmp_path / "nowhere") == 3


def test_facts_about_a_run_are_for_those_without_a_record(run: Path) -> None:
    """Exit code 2 beside a run.json, which tells them itself."""
    assert check(run, "--device", "cuda") == 2
    (run / "run.json").unlink()
    assert check(run, "--device", "cpu", "--regime", "finetune", "--allow-indeterminate") == 0


@pytest.mark.parametrize(
    "arguments",
    [["--vocab-size", "0"], ["--max-findings", "x"], ["--regime", "other"], ["--format", "pdf"]],
)
def test_wrong_argument_is_refused(run: Path, arguments: list[str]) -> None:
    """Argparse's exit code is 2."""
    with pytest.raises(SystemExit, match="2"):
        check(run, *arguments)


def test_findings_are_limited_on_request(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And how many more there are is said."""
    for line in (2, 5, 9):
        change_line(run / "train.jsonl", line, '"grad_norm":0.5', '"grad_norm":null')
    assert check(run, "--gate", "train-log", "--max-findings", "1") == 1
    assert "and 2 more like this" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["train.jsonl", "events.jsonl"])
def test_torn_tail_is_forgiven_while_the_run_goes_on(run: Path, name: str) -> None:
    """`--live`; afterwards every line is complete."""
    with (run / name).open("a", encoding="utf-8") as log:
        log.write('{"step": 12, "train')
    assert check(run, "--gate", "train-log") == 1
    assert check(run, "--gate", "train-log", "--live") == 0


def test_run_is_not_compared_with_itself(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A copy proves nothing."""
    assert main(["contract", "compare", str(run), str(run)]) != 0
    assert "EV-SELF-COMPARE" in capsys.readouterr().out


def test_short_runs_cannot_be_compared(run: Path, tmp_path: Path) -> None:
    """Twelve steps are not a hundred: exit code 4."""
    other = write_healthy_run(tmp_path / "other", run_id="second", clock_ms=5001.0)
    assert main(["contract", "compare", str(run), str(other)]) == 4
    assert main(["contract", "compare", str(run), str(other), "--allow-indeterminate"]) == 0


def test_other_learning_rate_is_shown_with_both_lines(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first difference fails the comparison."""
    other = write_healthy_run(tmp_path / "other", run_id="second", clock_ms=5001.0)
    change_line(other / "train.jsonl", 4, '"lr":', '"lr":1')
    assert main(["contract", "compare", str(run), str(other)]) == 1
    out = capsys.readouterr().out
    assert f"{run}/train.jsonl:4" in out
    assert f"{other}/train.jsonl:4" in out


def test_missing_run_cannot_be_compared(run: Path, tmp_path: Path) -> None:
    """Exit code 3."""
    assert main(["contract", "compare", str(run), str(tmp_path / "nowhere")]) == 3
