"""Findings of the rules on evidence that contradicts itself."""

from __future__ import annotations

from lightning_elche.contracts.rules.evidence import EVIDENCE_RULES
from lightning_elche.contracts.verdicts import Finding, Location

__all__ = ["contradiction"]

SEVERITY_OF = {rule.id: rule.severity for rule in EVIDENCE_RULES}


def contradiction(rule: str, message: str, *, path: str, field: str | None = None) -> Finding:
    """Return a finding, as severe as the rule is.

    Args:
        rule: Id of the rule, such as "EV-PPL".
        message: What contradicts what.
        path: The file that says so.
        field: The field of it.
    """
    at = Location(path=path, pointer=None if field is None else f"/{field}")
    return Finding(rule=rule, severity=SEVERITY_OF[rule], message=message, at=at)
