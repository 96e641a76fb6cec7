"""What a report says about places in files, for formats that know nothing of gates."""

from __future__ import annotations

from dataclasses import replace

from lightning_elche.contracts.verdicts import (
    Finding,
    GateResult,
    Location,
    Report,
    Severity,
    Verdict,
)

__all__ = ["located_findings"]

SEVERITY_OF = {Verdict.FAIL: Severity.ERROR, Verdict.INDETERMINATE: Severity.WARNING}


def located_findings(report: Report) -> tuple[Finding, ...]:
    """Return all findings, and the reasons of gates that no finding of theirs tells.

    Every gate that did not pass is among them: one that fails as an error, one that could not
    be judged as a warning. All have a place, if only the subject of the report.
    """
    reasons = (_reason(gate) for gate in report.gates if not _is_told(gate))
    everything = (_placed(one, report.subject) for one in (*report.all_findings, *reasons))
    return tuple(sorted(everything, key=lambda one: one.sort_key))


def _is_told(gate: GateResult) -> bool:
    if gate.verdict not in SEVERITY_OF:
        return True
    severity = SEVERITY_OF[gate.verdict]
    return any(one.rule == gate.gate and one.severity is severity for one in gate.findings)


def _reason(gate: GateResult) -> Finding:
    message = f"{gate.verdict.value}: {gate.reason}"
    return Finding(rule=gate.gate, severity=SEVERITY_OF[gate.verdict], message=message)


def _placed(finding: Finding, subject: str) -> Finding:
    return finding if finding.at is not None else replace(finding, at=Location(path=subject))
