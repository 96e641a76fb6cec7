"""Whether two runs took the same first steps, by their folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lightning_elche.contracts.checking.check import compare_runs, exit_code
from lightning_elche.contracts.model import Contract
from lightning_elche.contracts.runfolder.rundir import RunUnreadable
from tests.contracts.runs import Attempt, Epoch, Run, Step


def train(run_dir: Path, speed: float, *, num_steps: int = 100, **changed: Any) -> Path:
    """Train one epoch; `run_id` is the name of the folder."""
    steps = [Step(changed={"tokens_per_sec": speed}) for _ in range(num_steps)]
    changed = {"run_id": run_dir.name, **changed}
    Run(run_dir, Contract.default(), **changed).go(Attempt(epochs=(Epoch(steps=tuple(steps)),)))
    return run_dir


def replace_in(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new, 1))


def test_runs_are_the_same_if_only_their_clocks_differ(tmp_path: Path) -> None:
    """A hundred steps with the same losses pass."""
    report = compare_runs(train(tmp_path / "a", 1000.0), train(tmp_path / "b", 1001.0))
    assert (report.gates[0].gate, report.gates[0].verdict.value) == ("GATE-TRAIN-006", "PASS")
    assert (report.findings, exit_code(report)) == ((), 0)


def test_first_difference_is_shown_with_both_lines(tmp_path: Path) -> None:
    """Each line is a finding at its place."""
    a, b = train(tmp_path / "a", 1000.0), train(tmp_path / "b", 1001.0)
    replace_in(b / "train.jsonl", '"step":7,"train_loss":2.5', '"step":7,"train_loss":2.6')
    report = compare_runs(a, b)
    places = [(one.at.path, one.at.line) for one in report.gates[0].findings if one.at is not None]
    assert places == [((a / "train.jsonl").as_posix(), 8), ((b / "train.jsonl").as_posix(), 8)]
    assert '{"step":7,"train_loss":2.6,' in report.gates[0].findings[1].message


@pytest.mark.parametrize(
    ("changed", "num_steps", "reason"),
    [
        ({"seed": 8}, 100, "the runs have other seeds: 7 and 8"),
        ({}, 99, "the runs have only 99 of the first 100 steps in common"),
    ],
)
def test_runs_that_cannot_be_compared_are_open(
    tmp_path: Path, changed: dict[str, Any], num_steps: int, reason: str
) -> None:
    """Neither runs of other seeds nor short ones tell anything."""
    a, b = train(tmp_path / "a", 1.0), train(tmp_path / "b", 2.0, num_steps=num_steps, **changed)
    report = compare_runs(a, b)
    assert (report.gates[0].reason, exit_code(report)) == (reason, 4)


@pytest.mark.parametrize(
    ("speed", "run_id", "message"),
    [
        (1000.0, "b", "both have the same throughput and time in every step"),
        (1001.0, "a", "both are run a"),
    ],
)
def test_run_is_not_compared_with_itself(
    tmp_path: Path, speed: float, run_id: str, message: str
) -> None:
    """A copy is as good as the original at that, and proves nothing."""
    a, b = train(tmp_path / "a", 1000.0), train(tmp_path / "b", speed, run_id=run_id)
    report = compare_runs(a, b)
    assert report.gates[0].verdict.value == "INDETERMINATE"
    assert [(one.rule, one.message) for one in report.findings] == [("EV-SELF-COMPARE", message)]


def test_log_that_is_missing_is_an_error(tmp_path: Path) -> None:
    """There is nothing to compare."""
    a, b = train(tmp_path / "a", 1.0), train(tmp_path / "b", 2.0)
    (b / "train.jsonl").unlink()
    with pytest.raises(RunUnreadable, match="is missing: it is what runs are compared by"):
        compare_runs(a, b)
