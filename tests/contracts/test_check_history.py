"""A run that was aborted, resumed, is not over, or lacks a part of its evidence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lightning_elche.contracts.checking.check import check_run
from lightning_elche.contracts.verdicts import Severity
from tests.contracts.checked import DEFAULT, METADATA, failed, rules_of, unknown
from tests.contracts.runs import Attempt, Epoch, Run, Step, digest, edit, train_healthily


def test_checkpoint_of_the_aborted_epoch_fails_divergence(tmp_path: Path) -> None:
    """Weights that broke the rule must not lie where the good ones are."""
    run_dir = tmp_path / "run"
    diverged = Attempt(epochs=(Epoch(val_loss=3.0), Epoch(val_loss=7.0)))
    Run(run_dir, DEFAULT).go(diverged)
    assert failed(check_run(run_dir, digest=digest)) == ["003", "005"]
    shutil.copy(run_dir / "ckpt/epoch-000.ckpt", run_dir / "ckpt/epoch-001.ckpt")
    report = check_run(run_dir, digest=digest)
    assert failed(report) == ["002", "003", "005"]
    assert "EV-CKPT-AFTER-ABORT" in rules_of(report, Severity.ERROR)


def test_abort_of_an_attempt_that_was_given_up_is_forgotten(tmp_path: Path) -> None:
    """A run that is resumed before the abort, and then is healthy, passes."""
    sick = Attempt(epochs=(Epoch(val_loss=3.0), Epoch(steps=(Step(changed={"lr": float("nan")}),))))
    healthy = Attempt(epochs=(Epoch(val_loss=2.5), Epoch(val_loss=2.1)), from_epoch=1)
    Run(tmp_path, DEFAULT).go(sick)
    assert failed(check_run(tmp_path, digest=digest)) == ["003", "007"]
    shutil.rmtree(tmp_path)
    Run(tmp_path, DEFAULT).go(sick, healthy)
    assert failed(check_run(tmp_path, digest=digest)) == []


def test_steps_are_given_up_by_an_attempt_that_made_none(tmp_path: Path) -> None:
    """A run that is resumed, and ends at once, is where it was when its checkpoint was saved."""
    run = Run(tmp_path, DEFAULT)
    lost = Epoch(steps=(Step(), Step(changed={"wall_ms": 9e9})), val_loss="none")
    run.go(Attempt(epochs=(Epoch(), lost), status="INTERRUPTED"), Attempt(epochs=(), from_epoch=1))
    report = check_run(tmp_path, digest=digest)
    assert (report.facts["steps"], report.gates[0].verdict.value) == (2, "PASS")
    assert "do not count: a later attempt began before them" in report.findings[0].message


def test_unknown_abort_fails(run_dir: Path) -> None:
    """An event that says that the run was aborted, for a reason nobody knows, is no small thing."""
    (run_dir / "events.jsonl").write_text('{"event": "ABORT", "abort": "BOREDOM"}\n')
    report = check_run(run_dir, digest=digest)
    assert failed(report) == ["001"]
    assert report.gates[0].findings[0].message == "an ABORT event names no abort that is known"


@pytest.mark.parametrize(("is_live", "gates"), [(True, []), (False, ["002"])])
def test_epoch_in_the_making_is_not_looked_at_live(
    run_dir: Path, is_live: bool, gates: list[str]
) -> None:
    """While a run goes on its last files may be there before it counts them."""
    edit(run_dir / "run.json", status="RUNNING", epochs_completed=2)
    (run_dir / METADATA.replace("001", "002")).unlink()
    report = check_run(run_dir, is_live=is_live, digest=digest)
    assert failed(report) == gates
    assert "003" in unknown(report)


def test_log_of_a_rank_that_is_missing_leaves_its_gates_open(tmp_path: Path) -> None:
    """A rank whose log is declared and gone may have seen anything."""
    run_dir = train_healthily(tmp_path, num_ranks=2)
    assert unknown(check_run(run_dir, digest=digest)) == []
    (run_dir / "train.rank1.jsonl").unlink()
    report = check_run(run_dir, digest=digest)
    assert unknown(report)[:3] == ["001", "007", "008"]
    assert report.gates[0].reason == "train.rank1.jsonl is missing"


def test_log_of_another_rank_is_judged(tmp_path: Path) -> None:
    """What is wrong on any rank is wrong."""
    run_dir = train_healthily(tmp_path, num_ranks=2)
    path = run_dir / "train.rank1.jsonl"
    path.write_text(path.read_text().replace('"gpu_util_pct":0', '"gpu_util_pct":101', 1))
    assert failed(check_run(run_dir, digest=digest)) == ["008"]


def test_run_without_a_record_is_judged_by_what_its_reader_knows(run_dir: Path) -> None:
    """Logs and epochs are judged, and what only a run can tell of itself is open."""
    (run_dir / "run.json").unlink()
    report = check_run(run_dir, regime="finetune", device="cpu", digest=digest)
    assert failed(report) == []
    assert unknown(report) == ["002", "009", "010"]


def test_limit_of_the_first_epoch_is_open_if_nobody_tells_the_regime(run_dir: Path) -> None:
    """Without it there is no saying what is too much."""
    (run_dir / "run.json").unlink()
    assert "005" in unknown(check_run(run_dir, digest=digest))


@pytest.mark.parametrize("told", [{"regime": "finetune"}, {"vocab_size": 9}, {"device": "cpu"}])
def test_facts_are_refused_if_the_run_tells_them(run_dir: Path, told: dict[str, Any]) -> None:
    """Two answers to one question are one too many."""
    with pytest.raises(ValueError, match=f"`{next(iter(told))}` must not be given"):
        check_run(run_dir, **told)


def test_disk_that_was_full_fails_the_artifacts_only(tmp_path: Path) -> None:
    """What an epoch has come to is told by the event, so that the other gates can be judged."""
    epochs = (Epoch(val_loss=3.0, fault="metadata"), Epoch(val_loss=2.5), Epoch(val_loss=2.1))
    Run(tmp_path, DEFAULT).go(Attempt(epochs=epochs))
    report = check_run(tmp_path, digest=digest)
    assert (failed(report), unknown(report)) == (["002"], [])


def test_announced_cycle_is_read(run_dir: Path) -> None:
    """An epoch may be as short as its data then."""
    path, record = run_dir / "run.json", json.loads((run_dir / "run.json").read_text())
    path.write_text(json.dumps({**record, "planned_batches": 50}))
    for file in run_dir.glob("ckpt/*.metadata.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "batches": 4}))
    assert failed(check_run(run_dir, digest=digest)) == ["UST"]
    event = {"event": "CYCLE", "attempt": 0, "epoch": 0, "tokens": 4096}
    with (run_dir / "events.jsonl").open("a") as file:
        file.write(json.dumps(event) + "\n")
    assert failed(check_run(run_dir, digest=digest)) == []
