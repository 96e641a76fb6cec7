"""What a report means for the exit status of a command."""

from __future__ import annotations

from lightning_elche.contracts.verdicts import Report, Severity, Verdict

__all__ = ["BROKEN", "HOLDS", "UNJUDGED", "exit_code"]

HOLDS, BROKEN, UNJUDGED = 0, 1, 4


def exit_code(
    report: Report, *, allows_indeterminate: bool = False, is_strict: bool = False
) -> int:
    """Return the exit status of a command that could read its input.

    Args:
        report: What it found.
        allows_indeterminate: Gates that cannot be judged, and reports without gates, are fine.
        is_strict: Warnings count as errors.

    Returns:
        1 if a gate fails or there is an error; else 4 if a gate could not be judged or none was;
        else 0.
    """
    fatal = {Severity.ERROR, Severity.WARNING} if is_strict else {Severity.ERROR}
    if report.count(Verdict.FAIL) or any(one.severity in fatal for one in report.all_findings):
        return BROKEN
    is_open = report.count(Verdict.INDETERMINATE) or not report.count(Verdict.PASS)
    return UNJUDGED if is_open and not allows_indeterminate else HOLDS
