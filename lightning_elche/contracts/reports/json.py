"""A report for programs."""

from __future__ import annotations

import json
from typing import Any

from lightning_elche.contracts.reports.summary import overall
from lightning_elche.contracts.rules.catalog import RULES, remedy
from lightning_elche.contracts.strictjson import jsonable
from lightning_elche.contracts.verdicts import Finding, GateResult, Report, Verdict
from lightning_elche.version import VERSION

__all__ = ["SCHEMA", "render"]

SCHEMA = "elche/report-v1"


def render(report: Report) -> str:
    """Return the report as strict JSON: numbers that are not finite are strings."""
    document = {
        "schema": SCHEMA,
        "version": VERSION,
        "command": report.command,
        "subject": report.subject,
        "verdict": overall(report).value,
        "counts": {verdict.value: report.count(verdict) for verdict in Verdict},
        "gates": [_gate(gate) for gate in report.gates],
        "findings": [_finding(one) for one in sorted(report.findings, key=lambda f: f.sort_key)],
        "facts": jsonable(report.facts),
    }
    return json.dumps(document, indent=2, allow_nan=False)


def _gate(gate: GateResult) -> dict[str, Any]:
    return {
        "id": gate.gate,
        "title": RULES[gate.gate].title if gate.gate in RULES else None,
        "verdict": gate.verdict.value,
        "reason": gate.reason,
        "remedy": remedy(gate.gate),
        "findings": [_finding(one) for one in sorted(gate.findings, key=lambda f: f.sort_key)],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    at = finding.at
    return {
        "rule": finding.rule,
        "severity": finding.severity.value,
        "message": finding.message,
        "path": at and at.path,
        "line": at and at.line,
        "column": at and at.column,
        "offset": at and at.offset,
        "pointer": at and at.pointer,
    }
