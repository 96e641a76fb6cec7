"""What `elche contract explain` tells of a rule."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_elche.contracts.verdicts import Abort, Severity

__all__ = ["Rule"]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """The text of a rule.

    Attributes:
        id: Such as "GATE-TRAIN-005", "EV-PPL" or "CT-YAML".
        title: A few words.
        rule: What must hold, with its limits.
        evidence: What is read to judge it.
        remedy: What to do where it does not hold.
        severity: Of its findings.
        abort: How a training run ends that breaks it; `None` if it goes on.
    """

    id: str
    title: str
    rule: str
    evidence: str
    remedy: str
    severity: Severity = Severity.ERROR
    abort: Abort | None = None

    @property
    def exit_code(self) -> int | None:
        """Exit code of a training process that breaks the rule; `None` if it goes on."""
        return None if self.abort is None else self.abort.value
