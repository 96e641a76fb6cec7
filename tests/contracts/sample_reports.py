"""Reports that the tests of the formats share."""

from __future__ import annotations

from lightning_elche.contracts.verdicts import (
    Finding,
    GateResult,
    Location,
    Report,
    Severity,
    Verdict,
)

DIVERGENCE = "DIVERGENCE at epoch 1: val_loss 7.1 > 2.0 x 3.5 (ratio 2.029)"

FAILED = GateResult(
    gate="GATE-TRAIN-005",
    verdict=Verdict.FAIL,
    reason=DIVERGENCE,
    findings=(
        Finding(
            rule="GATE-TRAIN-005",
            severity=Severity.ERROR,
            message=DIVERGENCE,
            at=Location(path="run/ckpt/epoch-001.metadata.json", line=3, column=15, offset=40),
        ),
    ),
)
PASSED = GateResult(gate="GATE-TRAIN-001", verdict=Verdict.PASS, reason="8 records")
UNJUDGED = GateResult(
    gate="GATE-TRAIN-010", verdict=Verdict.INDETERMINATE, reason="run.json has no provenance"
)
UNDECLARED = GateResult(
    gate="GATE-TRAIN-006", verdict=Verdict.NOT_DECLARED, reason="the contract has no such gate"
)
WARNED = Finding(
    rule="EV-WALL",
    severity=Severity.WARNING,
    message="steps of epoch 0 took 9.9 s of 8.0 s",
    at=Location(path="run/ckpt/epoch-000.metadata.json"),
)
NOTED = Finding(
    rule="GATE-TRAIN-001",
    severity=Severity.NOTE,
    message="a blank line",
    at=Location(path="run/train.jsonl", line=4, column=1),
)
MIXED = Report(
    command="check",
    subject="run",
    gates=(PASSED, FAILED, UNJUDGED, UNDECLARED),
    findings=(NOTED, WARNED),
    facts={"contract": "contract.yaml", "sha256": None},
)
GREEN = Report(command="check", subject="run", gates=(PASSED,))
EMPTY = Report(command="check", subject="run")


def hostile(text: str) -> Report:
    """Return a report that quotes `text` wherever a file could have put it."""
    finding = Finding(
        rule="GATE-MY-001", severity=Severity.ERROR, message=text, at=Location(path=text, line=1)
    )
    gate = GateResult(gate=f"GATE-{text}", verdict=Verdict.FAIL, reason=text, findings=(finding,))
    return Report(
        command="check", subject=text, gates=(gate,), findings=(finding,), facts={text: text}
    )
