"""A report for people: `path:line:column: RULE message`, then a line per gate."""

from __future__ import annotations

from collections.abc import Iterator

from lightning_elche.contracts.reports.printable import printable
from lightning_elche.contracts.reports.summary import overall, summary
from lightning_elche.contracts.rules.catalog import remedy
from lightning_elche.contracts.verdicts import (
    Finding,
    GateResult,
    Location,
    Report,
    Severity,
    Verdict,
)

__all__ = ["QUIET", "VERBOSE", "place", "render"]

QUIET, NORMAL, VERBOSE = -1, 0, 1
SHOWN_FROM = {
    Verdict.FAIL: QUIET,
    Verdict.INDETERMINATE: QUIET,
    Verdict.PASS: NORMAL,
    Verdict.NOT_DECLARED: VERBOSE,
    Severity.ERROR: QUIET,
    Severity.WARNING: NORMAL,
    Severity.NOTE: VERBOSE,
}
COLORS = {"FAIL": "31", "INDETERMINATE": "33", "PASS": "32", "error": "31", "warning": "33"}
VERDICT_WIDTH = len(Verdict.INDETERMINATE.value)


def render(report: Report, *, verbosity: int = NORMAL, is_colored: bool = False) -> str:
    """Return the report as text.

    Args:
        report: The report.
        verbosity: `QUIET` for what is wrong only, `VERBOSE` also for notes, for gates that the
            contract does not declare and for what to do about every finding.
        is_colored: Whether to use the colours of a terminal.
    """
    lines = list(_findings(report, verbosity))
    lines += [line for gate in report.gates for line in _gate(gate, verbosity, is_colored)]
    if verbosity > QUIET:
        lines += [printable(f"{name}: {value}") for name, value in _scalars(report)]
    if verbosity > QUIET or overall(report) is not Verdict.PASS:
        verdict, _, rest = summary(report).partition(":")
        lines.append(f"{_paint(verdict, is_colored)}:{rest}")
    return "\n".join(lines)


def place(at: Location | None) -> str:
    """Return `path:line:column` as far as it is known."""
    if at is None:
        return ""
    parts = (at.path, at.line, at.column)
    return printable(":".join(str(part) for part in parts if part is not None))


def _findings(report: Report, verbosity: int) -> Iterator[str]:
    for finding in report.all_findings:
        if SHOWN_FROM[finding.severity] <= verbosity:
            yield _finding(finding)
            if verbosity >= VERBOSE and remedy(finding.rule):
                yield f"    {remedy(finding.rule)}"


def _finding(finding: Finding) -> str:
    where = f"{place(finding.at)}: " if finding.at else ""
    kind = "" if finding.severity is Severity.ERROR else f"{finding.severity.value}: "
    return f"{where}{printable(finding.rule)} {kind}{printable(finding.message)}"


def _gate(gate: GateResult, verbosity: int, is_colored: bool) -> Iterator[str]:
    if SHOWN_FROM[gate.verdict] > verbosity:
        return
    padding = " " * (VERDICT_WIDTH - len(gate.verdict.value))
    verdict = _paint(gate.verdict.value, is_colored) + padding
    yield f"{verdict} {printable(gate.gate)}: {printable(gate.reason)}"
    if gate.verdict is Verdict.FAIL and remedy(gate.gate):
        yield f"{' ' * VERDICT_WIDTH} {remedy(gate.gate)}"


def _scalars(report: Report) -> Iterator[tuple[str, object]]:
    for name, value in report.facts.items():
        if isinstance(value, str | int | float):
            yield name, value


def _paint(word: str, is_colored: bool) -> str:
    return f"\x1b[{COLORS[word]}m{word}\x1b[0m" if is_colored and word in COLORS else word
