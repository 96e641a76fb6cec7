"""Changes to a finished report: other places, stricter, shorter."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace

from lightning_elche.contracts.verdicts import Finding, Report, Severity

__all__ = ["limit_findings", "move_places", "raise_warnings"]


def raise_warnings(report: Report) -> Report:
    """Return the report with its warnings as errors."""
    return _edit(report, lambda findings: tuple(map(_raised, findings)))


def move_places(report: Report, move: Callable[[str], str]) -> Report:
    """Return the report with `move(path)` for the path of every finding."""
    return _edit(report, lambda findings: tuple(_moved(one, move) for one in findings))


def limit_findings(report: Report, most: int) -> Report:
    """Return the report with at most `most` findings of a rule and severity per gate.

    How many were left out is a finding of its own.
    """
    return _edit(report, lambda findings: _limited(findings, most))


def _edit(report: Report, edit: Callable[[tuple[Finding, ...]], tuple[Finding, ...]]) -> Report:
    gates = tuple(replace(gate, findings=edit(gate.findings)) for gate in report.gates)
    return replace(report, gates=gates, findings=edit(report.findings))


def _raised(finding: Finding) -> Finding:
    is_warning = finding.severity is Severity.WARNING
    return replace(finding, severity=Severity.ERROR) if is_warning else finding


def _moved(finding: Finding, move: Callable[[str], str]) -> Finding:
    if finding.at is None:
        return finding
    return replace(finding, at=replace(finding.at, path=move(finding.at.path)))


def _limited(findings: Iterable[Finding], most: int) -> tuple[Finding, ...]:
    kinds: dict[tuple[str, Severity], list[Finding]] = defaultdict(list)
    for one in sorted(findings, key=lambda finding: finding.sort_key):
        kinds[one.rule, one.severity].append(one)
    return tuple(one for kind in kinds.values() for one in _cut(kind, most))


def _cut(kind: list[Finding], most: int) -> list[Finding]:
    if len(kind) <= most:
        return kind
    left_out = f"and {len(kind) - most} more like this; raise `--max-findings` to see them"
    return [*kind[:most], replace(kind[most], message=left_out)]
