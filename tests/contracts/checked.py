"""What the tests of a check change in a healthy run, and read in the report on it."""

from __future__ import annotations

from pathlib import Path

from lightning_elche.contracts.model import Contract
from lightning_elche.contracts.verdicts import Report, Severity, Verdict

__all__ = ["DEFAULT", "METADATA", "OTHER_ROW", "failed", "flip_bit", "rules_of", "unknown"]

DEFAULT = Contract.default()
OTHER_ROW = {"regime": "finetune", "lr_max": 1e-5, "warmup_steps": 100, "target_val_loss": 2.2}
METADATA = "ckpt/epoch-001.metadata.json"


def failed(report: Report) -> list[str]:
    """Return the last part of the ids of the gates that fail."""
    return [one.gate[-3:] for one in report.gates if one.verdict is Verdict.FAIL]


def unknown(report: Report) -> list[str]:
    return [one.gate[-3:] for one in report.gates if one.verdict is Verdict.INDETERMINATE]


def rules_of(report: Report, severity: Severity) -> set[str]:
    return {one.rule for one in report.all_findings if one.severity is severity}


def flip_bit(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
