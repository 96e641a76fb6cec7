"""A report as SARIF 2.1.0, the exchange format of static analysis."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from lightning_elche.contracts.reports.located import located_findings
from lightning_elche.contracts.rules.catalog import RULES
from lightning_elche.contracts.verdicts import Finding, Location, Report
from lightning_elche.version import VERSION

__all__ = ["render"]

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def render(report: Report) -> str:
    """Return the report as SARIF; every gate that did not pass has a result."""
    findings = located_findings(report)
    rules = sorted({one.rule for one in findings})
    run = {
        "tool": {"driver": _driver(rules)},
        "columnKind": "unicodeCodePoints",
        "results": [_result(one, rules.index(one.rule)) for one in findings],
        "properties": {"verdicts": {gate.gate: gate.verdict.value for gate in report.gates}},
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2)


def _driver(rules: list[str]) -> dict[str, Any]:
    return {
        "name": "lightning-elche",
        "version": VERSION,
        "rules": [_rule(rule) for rule in rules],
    }


def _rule(rule: str) -> dict[str, Any]:
    known = RULES.get(rule)
    if known is None:
        return {"id": rule}
    return {
        "id": rule,
        "shortDescription": {"text": known.title},
        "fullDescription": {"text": known.rule},
        "help": {"text": known.remedy},
        "defaultConfiguration": {"level": known.severity.value},
    }


def _result(finding: Finding, index: int) -> dict[str, Any]:
    location = {"physicalLocation": _physical(finding.at or Location(path=""))}
    return {
        "ruleId": finding.rule,
        "ruleIndex": index,
        "level": finding.severity.value,
        "message": {"text": finding.message},
        "locations": [location],
    }


def _physical(at: Location) -> dict[str, Any]:
    region = {"startLine": max(at.line or 1, 1), "startColumn": max(at.column or 1, 1)}
    return {"artifactLocation": {"uri": _uri(at.path)}, "region": region}


def _uri(path: str) -> str:
    """Return the path as a URI: a relative one, but for an absolute path."""
    quoted = quote(path, errors="surrogateescape")
    return f"file://{quoted}" if quoted.startswith("/") else quoted
