"""A report in one line."""

from __future__ import annotations

from collections import Counter

from lightning_elche.contracts.verdicts import Report, Severity, Verdict

__all__ = ["overall", "summary"]

GATED = ("check", "compare")  # commands that promise a verdict per gate
COUNTED = {
    Verdict.FAIL: "failed",
    Verdict.INDETERMINATE: "indeterminate",
    Verdict.PASS: "passed",
}


def overall(report: Report) -> Verdict:
    """Return the verdict on the whole: the worst of all, and no PASS where nothing was checked."""
    if report.count(Verdict.FAIL) or _count(report, Severity.ERROR):
        return Verdict.FAIL
    is_unchecked = report.command in GATED and not report.count(Verdict.PASS)
    if report.count(Verdict.INDETERMINATE) or is_unchecked:
        return Verdict.INDETERMINATE
    return Verdict.PASS


def summary(report: Report) -> str:
    """Return the verdict on the whole and what it is made of."""
    gates = [f"{report.count(verdict)} {word}" for verdict, word in COUNTED.items()]
    found = [_plural(_count(report, severity), severity.value) for severity in Severity]
    parts = [f"gates: {', '.join(gates)}"] if report.gates else []
    return f"{overall(report).value}: {'; '.join((*parts, ', '.join(found)))}"


def _count(report: Report, severity: Severity) -> int:
    return Counter(one.severity for one in report.all_findings)[severity]


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
