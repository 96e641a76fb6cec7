"""What a report means for the exit status of a command."""

from __future__ import annotations

import pytest

from lightning_elche.contracts.checking.exitcode import exit_code
from lightning_elche.contracts.verdicts import Finding, GateResult, Report, Severity, Verdict

PASS, FAIL = Verdict.PASS, Verdict.FAIL
OPEN, ABSENT = Verdict.INDETERMINATE, Verdict.NOT_DECLARED
ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE


def report(verdicts: list[Verdict], severities: list[Severity]) -> Report:
    gates = tuple(GateResult(gate="G", verdict=own, reason="") for own in verdicts)
    findings = tuple(Finding(rule="R", severity=own, message="") for own in severities)
    return Report(command="check", subject="run", gates=gates, findings=findings)


@pytest.mark.parametrize(
    ("verdicts", "severities", "code"),
    [
        ([PASS, ABSENT], [WARNING, NOTE], 0),
        ([PASS, OPEN], [], 4),
        ([ABSENT], [], 4),  # nothing was checked
        ([], [], 4),
        ([PASS, OPEN, FAIL], [], 1),
        ([PASS, OPEN], [ERROR], 1),
    ],
)
def test_first_that_applies_is_the_exit_status(
    verdicts: list[Verdict], severities: list[Severity], code: int
) -> None:
    """What is broken comes before what is not known, and that before what holds."""
    assert exit_code(report(verdicts, severities)) == code


@pytest.mark.parametrize(
    ("verdicts", "code"), [([PASS, OPEN], 0), ([ABSENT], 0), ([OPEN, FAIL], 1)]
)
def test_what_is_not_known_may_be_allowed(verdicts: list[Verdict], code: int) -> None:
    """What is broken may not."""
    assert exit_code(report(verdicts, []), allows_indeterminate=True) == code


@pytest.mark.parametrize(("severity", "code"), [(WARNING, 1), (NOTE, 0)])
def test_warnings_are_errors_if_the_check_is_strict(severity: Severity, code: int) -> None:
    """Notes are not."""
    assert exit_code(report([PASS], [severity]), is_strict=True) == code
