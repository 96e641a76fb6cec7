"""Changes to finished reports."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lightning_elche.contracts.reports.edits import limit_findings, move_places, raise_warnings
from lightning_elche.contracts.verdicts import Finding, Location, Report, Severity
from tests.contracts.sample_reports import EMPTY, MIXED, NOTED, WARNED


def lines(count: int, severity: Severity = Severity.ERROR) -> tuple[Finding, ...]:
    return tuple(
        Finding(rule="R", severity=severity, message="m", at=Location(path="a", line=line))
        for line in range(count, 0, -1)
    )


def with_gate_of(findings: tuple[Finding, ...]) -> Report:
    return replace(EMPTY, gates=(replace(MIXED.gates[1], findings=findings),))


def test_warnings_become_errors_and_notes_stay() -> None:
    """Also those of gates."""
    report = raise_warnings(replace(with_gate_of((WARNED,)), findings=(NOTED,)))
    assert [one.severity for one in report.all_findings] == [Severity.ERROR, Severity.NOTE]


def test_places_are_moved_and_missing_ones_stay_missing() -> None:
    """Line and column are kept."""
    nowhere = replace(WARNED, at=None)
    report = move_places(replace(EMPTY, findings=(nowhere, NOTED)), lambda path: f"up/{path}")
    assert [one.at for one in report.findings] == [
        None,
        Location(path="up/run/train.jsonl", line=4, column=1),
    ]


@pytest.mark.parametrize("count", [1, 3])
def test_findings_within_the_limit_are_kept(count: int) -> None:
    """None is left out, and nothing said."""
    assert len(limit_findings(replace(EMPTY, findings=lines(count)), 3).findings) == count


def test_first_findings_are_kept_and_the_rest_counted() -> None:
    """By place, whatever their order was."""
    limited = limit_findings(with_gate_of(lines(5)), 3).gates[0].findings
    assert [one.at and one.at.line for one in limited] == [1, 2, 3, 4]
    assert limited[3].message == "and 2 more like this; raise `--max-findings` to see them"


def test_severities_are_limited_apart() -> None:
    """A flood of notes hides no error."""
    findings = lines(5, Severity.NOTE) + lines(2)
    kept = limit_findings(replace(EMPTY, findings=findings), 2).findings
    assert [one.severity.value for one in kept] == ["note", "note", "note", "error", "error"]
