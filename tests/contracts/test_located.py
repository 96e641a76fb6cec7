"""What formats without gates show."""

from __future__ import annotations

from dataclasses import replace

from lightning_elche.contracts.reports.located import located_findings
from lightning_elche.contracts.verdicts import Location, Severity
from tests.contracts.sample_reports import FAILED, GREEN, MIXED, UNDECLARED, UNJUDGED, WARNED


def test_failed_gate_with_a_finding_is_not_told_twice() -> None:
    """Its finding says where."""
    assert located_findings(replace(GREEN, gates=(FAILED,))) == FAILED.findings


def test_failed_gate_without_a_finding_is_an_error_at_the_subject() -> None:
    """Its reason says what."""
    (told,) = located_findings(replace(GREEN, gates=(replace(FAILED, findings=()),)))
    assert (told.severity, told.at) == (Severity.ERROR, Location(path="run"))
    assert told.message.startswith("FAIL: DIVERGENCE")


def test_failed_gate_with_a_foreign_finding_is_told_beside_it() -> None:
    """A warning of another rule does not stand for the gate."""
    gate = replace(FAILED, findings=(WARNED,))
    told = located_findings(replace(GREEN, gates=(gate,)))
    assert [one.rule for one in told] == ["GATE-TRAIN-005", "EV-WALL"]


def test_gate_that_could_not_be_judged_is_a_warning() -> None:
    """It is not silent."""
    (told,) = located_findings(replace(GREEN, gates=(UNJUDGED,)))
    assert told.severity is Severity.WARNING
    assert told.message == "INDETERMINATE: run.json has no provenance"


def test_gates_that_pass_or_are_not_declared_are_silent() -> None:
    """Nothing is wrong with them."""
    assert located_findings(replace(GREEN, gates=(*GREEN.gates, UNDECLARED))) == ()


def test_findings_are_sorted_by_place() -> None:
    """Those of gates among the others."""
    places = [one.at.path for one in located_findings(MIXED) if one.at]
    assert places == [
        "run",
        "run/ckpt/epoch-000.metadata.json",
        "run/ckpt/epoch-001.metadata.json",
        "run/train.jsonl",
    ]
