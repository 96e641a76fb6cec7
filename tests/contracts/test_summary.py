"""A report in one line."""

from __future__ import annotations

from dataclasses import replace

from lightning_elche.contracts.reports.summary import overall, summary
from lightning_elche.contracts.verdicts import Finding, Report, Severity, Verdict
from tests.contracts.sample_reports import (
    EMPTY,
    FAILED,
    GREEN,
    MIXED,
    PASSED,
    UNDECLARED,
    UNJUDGED,
    WARNED,
)

BROKEN = Finding(rule="CT-YAML", severity=Severity.ERROR, message="duplicate key")


def test_worst_gate_decides() -> None:
    """One failed gate fails the whole, one that could not be judged leaves it open."""
    assert overall(replace(GREEN, gates=(PASSED, FAILED, UNJUDGED))) is Verdict.FAIL
    assert overall(replace(GREEN, gates=(PASSED, UNJUDGED))) is Verdict.INDETERMINATE


def test_gates_that_pass_are_a_pass_even_with_warnings() -> None:
    """A warning decides nothing."""
    assert overall(replace(GREEN, gates=(PASSED, UNDECLARED), findings=(WARNED,))) is Verdict.PASS


def test_error_beside_the_gates_fails_the_whole() -> None:
    """As if it were a gate."""
    assert overall(replace(GREEN, findings=(BROKEN,))) is Verdict.FAIL


def test_nothing_checked_is_no_pass() -> None:
    """Neither without gates nor with undeclared ones only."""
    assert overall(EMPTY) is Verdict.INDETERMINATE
    assert overall(replace(EMPTY, gates=(UNDECLARED,))) is Verdict.INDETERMINATE


def test_valid_contract_needs_no_gates() -> None:
    """`validate` judges files, not runs."""
    assert overall(Report(command="validate", subject="a.yaml")) is Verdict.PASS


def test_summary_counts_gates_and_findings() -> None:
    """By verdict and by severity."""
    assert summary(MIXED) == (
        "FAIL: gates: 1 failed, 1 indeterminate, 1 passed; 1 error, 1 warning, 1 note"
    )


def test_summary_without_gates_counts_findings_only() -> None:
    """As for a file that is valid."""
    report = Report(command="validate", subject="a.yaml")
    assert summary(report) == "PASS: 0 errors, 0 warnings, 0 notes"
