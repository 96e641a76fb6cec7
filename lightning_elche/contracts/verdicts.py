"""What judging a contract or a run comes to: violations, findings, verdicts, reports."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field

__all__ = [
    "Abort",
    "Finding",
    "GateResult",
    "Location",
    "Report",
    "Severity",
    "Verdict",
    "Violation",
]


class Verdict(enum.Enum):
    """What is known of a gate."""

    PASS = "PASS"
    FAIL = "FAIL"
    INDETERMINATE = "INDETERMINATE"
    NOT_DECLARED = "NOT_DECLARED"


class Severity(enum.Enum):
    """How much a finding matters."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Abort(enum.Enum):
    """Why a run is aborted: the value is the exit code of the training process."""

    METRIC_MISSING = 21
    ARTIFACT_WRITE_FAILED = 22
    DIVERGENCE = 25
    NUMERICAL_INSTABILITY = 27
    THROUGHPUT_OUT_OF_RANGE = 28
    STREAM_EXHAUSTED = 31


@dataclass(frozen=True, kw_only=True)
class Violation:
    """A rule that a step or an epoch breaks; the run is aborted with it.

    Attributes:
        gate: Id of the gate, such as "GATE-TRAIN-005".
        abort: The name and exit code of the abort.
        message: What happened where, for example
            "DIVERGENCE at epoch 1: val_loss 7.1 > 2.0 x 3.5 (ratio 2.029)".
        step: The optimizer step, if it was one.
        epoch: The epoch, if it was one.
        field: The value's name, such as "train_loss".
        value: The value; `None` where it was absent or no number.
        limit: What it was compared to, if to a number.
    """

    gate: str
    abort: Abort
    message: str
    step: int | None = None
    epoch: int | None = None
    field: str | None = None
    value: float | None = None
    limit: float | None = None

    @property
    def exit_code(self) -> int:
        """Exit code of the training process."""
        return self.abort.value


@dataclass(frozen=True, kw_only=True)
class Location:
    """A place in a file.

    Attributes:
        path: As given, or relative to the folder of the run, with forward slashes.
        line: From 1.
        column: From 1, in code points.
        offset: In bytes, from 0.
        pointer: JSON pointer into the document.
    """

    path: str
    line: int | None = None
    column: int | None = None
    offset: int | None = None
    pointer: str | None = None


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that a reader of the report should know.

    Attributes:
        rule: Id of the rule, such as "GATE-TRAIN-001", "EV-PPL" or "CT-YAML".
        severity: How much it matters.
        message: One line.
        at: Where it was found.
    """

    rule: str
    severity: Severity
    message: str
    at: Location | None = None

    @property
    def sort_key(self) -> tuple[str, int, int, str, str]:
        """Order of a report: file, line, column, rule."""
        at = self.at or Location(path="")
        return (at.path, at.line or 0, at.column or 0, self.rule, self.message)


@dataclass(frozen=True, kw_only=True)
class GateResult:
    """The verdict on one gate.

    Attributes:
        gate: Its id.
        verdict: The verdict.
        reason: Why, in one line; for PASS what was looked at.
        findings: What led to it.
    """

    gate: str
    verdict: Verdict
    reason: str
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Report:
    """The outcome of one command.

    Attributes:
        command: "validate", "check", "compare" or "diff".
        subject: What was looked at: files or folders, as given.
        gates: A result per gate, in the order of the contract.
        findings: All others, sorted by place.
        facts: Further facts for a reader, such as the contract that was used.
    """

    command: str
    subject: str
    gates: tuple[GateResult, ...] = ()
    findings: tuple[Finding, ...] = ()
    facts: dict[str, object] = field(default_factory=dict)

    @property
    def all_findings(self) -> tuple[Finding, ...]:
        """The findings of all gates and all others, sorted by place."""
        of_gates: Iterable[Finding] = (one for gate in self.gates for one in gate.findings)
        return tuple(sorted((*of_gates, *self.findings), key=lambda one: one.sort_key))

    def count(self, verdict: Verdict) -> int:
        """Return how many gates have this verdict."""
        return sum(gate.verdict is verdict for gate in self.gates)
