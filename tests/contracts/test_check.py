"""A run judged afterwards, from its files alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lightning_elche.contracts.checking.check import check_run, exit_code
from lightning_elche.contracts.model import Gate, Suppression
from lightning_elche.contracts.runfolder.rundir import RunUnreadable
from lightning_elche.contracts.verdicts import Severity, Verdict
from tests.contracts.checked import DEFAULT, METADATA, failed, rules_of, unknown
from tests.contracts.runs import digest, edit, train_healthily


def test_healthy_run_passes_every_gate(run_dir: Path) -> None:
    """All declared gates that one run can tell of pass, and nothing is found."""
    report = check_run(run_dir, digest=digest)
    assert [one.gate for one in report.gates if one.verdict is Verdict.PASS] == [
        one.id for one in DEFAULT.gates if one.id != "GATE-TRAIN-006"
    ]
    assert (report.all_findings, exit_code(report)) == ((), 0)


def test_report_tells_what_it_is_based_on(run_dir: Path) -> None:
    """A reader sees whose contract it was, and how far the run came."""
    facts = check_run(run_dir, digest=digest).facts
    assert facts["contract"] == "C-GATE-TRAIN 1.0.0, the run's own copy"
    assert (facts["steps"], facts["epochs"], facts["status"]) == (6, 3, "OK")
    assert facts["best_val_loss"] == "2.1 at epoch 2"


def test_digests_are_not_taken_on_trust(run_dir: Path) -> None:
    """Whoever cannot recompute them does not know."""
    assert unknown(check_run(run_dir)) == ["002"]
    assert unknown(check_run(run_dir, digest=lambda *_: None)) == ["002"]


def test_one_run_alone_does_not_tell_whether_it_can_be_repeated(run_dir: Path) -> None:
    """Asked for that gate the report says so, and else it is no part of it."""
    report = check_run(run_dir, gates=["GATE-TRAIN-006", "GATE-TRAIN-001"])
    assert [(one.gate[-3:], one.verdict.value) for one in report.gates] == [
        ("001", "PASS"),
        ("006", "INDETERMINATE"),
    ]


def test_gates_that_the_contract_lacks_are_not_declared(tmp_path: Path) -> None:
    """Nobody has asked for them, so that they are neither kept nor broken."""
    contract = replace(DEFAULT, gates=(Gate(id="GATE-TRAIN-001"), Gate(id="GATE-MY-001")))
    run_dir = train_healthily(tmp_path, contract)
    verdicts = {one.gate: one.verdict.value for one in check_run(run_dir, contract=contract).gates}
    assert verdicts.pop("GATE-TRAIN-001") == "PASS"
    assert verdicts.pop("GATE-MY-001") == "INDETERMINATE"
    assert (len(verdicts), set(verdicts.values())) == (10, {"NOT_DECLARED"})


def test_run_is_not_judged_without_a_contract(run_dir: Path) -> None:
    """There is no default: rules that a run was not trained under say nothing of it."""
    (run_dir / "contract.yaml").unlink()
    with pytest.raises(RunUnreadable, match=r"has no contract.yaml: name one with `--contract`"):
        check_run(run_dir, digest=digest)
    assert failed(check_run(run_dir, contract=DEFAULT, digest=digest)) == []


@pytest.mark.parametrize("keeps_digest", [True, False])
def test_other_contract_is_a_warning(run_dir: Path, keeps_digest: bool) -> None:
    """To judge by rules of one's own is fine, but the report says so."""
    if not keeps_digest:
        edit(run_dir / "run.json", contract={"id": "C-GATE-TRAIN"})
    other = replace(DEFAULT, text=DEFAULT.text + b"# mine", path="mine.yaml")
    report = check_run(run_dir, contract=other, digest=digest)
    (finding,) = report.findings
    assert (finding.rule, finding.severity.value) == ("EV-CONTRACT-DRIFT", "warning")
    assert finding.message == "mine.yaml is not the contract of the run"


def test_suppressed_warning_is_not_reported(run_dir: Path) -> None:
    """A contract silences the warnings it names, and no errors."""
    edit(run_dir / METADATA, wall_seconds=0.5, train_ppl=1.0)
    muted = tuple(
        Suppression(rule=rule, until="9999-12-31", reason="") for rule in ("EV-WALL", "EV-PPL")
    )
    report = check_run(run_dir, contract=replace(DEFAULT, suppressions=muted), digest=digest)
    assert rules_of(report, Severity.WARNING) == set()
    assert "EV-PPL" in rules_of(report, Severity.ERROR)


def test_contradiction_is_an_error_without_a_gate_for_it(tmp_path: Path) -> None:
    """Forged evidence is reported although the contract does not ask for artifacts."""
    contract = replace(DEFAULT, gates=(Gate(id="GATE-TRAIN-001"),))
    run_dir = train_healthily(tmp_path, contract)
    edit(run_dir / METADATA, train_ppl=1.0)
    report = check_run(run_dir, contract=contract)
    assert [one.rule for one in report.findings] == ["EV-PPL"]
    assert (failed(report), exit_code(report)) == ([], 1)


def test_only_the_gates_asked_for_are_told(run_dir: Path) -> None:
    """What is wrong besides does not fail a check of one gate."""
    edit(run_dir / METADATA, train_ppl=1.0, wall_seconds=0.5)
    report = check_run(run_dir, gates=["GATE-TRAIN-001"])
    assert [one.gate for one in report.gates] == ["GATE-TRAIN-001"]
    assert (report.all_findings, exit_code(report)) == ((), 0)
