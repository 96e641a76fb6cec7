"""A report as workflow commands of GitHub Actions, which annotate the files of a change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from lightning_elche.contracts.reports.located import located_findings
from lightning_elche.contracts.reports.summary import summary
from lightning_elche.contracts.reports.workflow import escape_message, escape_property
from lightning_elche.contracts.verdicts import Finding, Location, Report, Severity

__all__ = ["MAX_PER_LEVEL", "render"]

MAX_PER_LEVEL = 10  # GitHub drops what a step says beyond
LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "notice"}


def render(report: Report) -> str:
    """Return the report as workflow commands, at most ten of a level, and a summary."""
    return "\n".join((*_commands(report), f"elche contract: {summary(report)}"))


def _commands(report: Report) -> Iterator[str]:
    seen: Counter[Severity] = Counter()
    for finding in located_findings(report):
        seen[finding.severity] += 1
        if seen[finding.severity] <= MAX_PER_LEVEL:
            yield _command(finding)
    for severity, count in seen.items():
        if count > MAX_PER_LEVEL:
            yield f"{count - MAX_PER_LEVEL} more of level {LEVELS[severity]} are not annotated"


def _command(finding: Finding) -> str:
    properties = ",".join(f"{key}={escape_property(value)}" for key, value in _properties(finding))
    return f"::{LEVELS[finding.severity]} {properties}::{escape_message(finding.message)}"


def _properties(finding: Finding) -> Iterator[tuple[str, str]]:
    at = finding.at or Location(path="")
    yield "file", at.path
    if at.line is not None:
        yield "line", str(at.line)
    if at.column is not None:
        yield "col", str(at.column)
    yield "title", finding.rule
