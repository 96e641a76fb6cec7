"""What speaks against a gate, counted; only the first findings are kept."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_elche.contracts.verdicts import Finding, GateResult, Location, Severity, Verdict

__all__ = ["MAX_FINDINGS", "Tally", "worst"]

MAX_FINDINGS = 20
SEVEREST_FIRST = (Verdict.FAIL, Verdict.INDETERMINATE, Verdict.PASS)


class Tally:
    """The case against one gate.

    Args:
        gate: Its id.

    Attributes:
        gate: The same.
        failures: How often it was broken.
        doubts: Why it cannot be judged; kept once each.
    """

    def __init__(self, gate: str) -> None:
        self.gate = gate
        self.failures = 0
        self.doubts: list[str] = []
        self._findings: list[Finding] = []

    def fail(self, message: str, at: Location | None = None) -> None:
        """Note that it was broken."""
        self.failures += 1
        if len(self._findings) < MAX_FINDINGS:
            finding = Finding(rule=self.gate, severity=Severity.ERROR, message=message, at=at)
            self._findings.append(finding)

    def doubt(self, reason: str) -> None:
        """Note that it cannot be judged, unless it is broken."""
        if reason not in self.doubts:
            self.doubts.append(reason)

    def result(self, evidence: str) -> GateResult:
        """Return the verdict; `evidence` says what has been looked at."""
        if self.failures:
            more = f" (and {self.failures - 1} more)" if self.failures > 1 else ""
            reason = self._findings[0].message + more
            return GateResult(
                gate=self.gate, verdict=Verdict.FAIL, reason=reason, findings=tuple(self._findings)
            )
        verdict = Verdict.INDETERMINATE if self.doubts else Verdict.PASS
        reason = "; ".join(self.doubts) or evidence
        return GateResult(gate=self.gate, verdict=verdict, reason=reason)


def worst(results: Sequence[GateResult]) -> GateResult:
    """Return the severest of several verdicts on one gate, with the findings of all."""
    first = min(results, key=lambda one: SEVEREST_FIRST.index(one.verdict))
    findings = tuple(finding for one in results for finding in one.findings)
    return GateResult(
        gate=first.gate,
        verdict=first.verdict,
        reason=first.reason,
        findings=findings[:MAX_FINDINGS],
    )
