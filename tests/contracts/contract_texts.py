"""Contract files in a line or two, and what is said of them."""

from __future__ import annotations

import datetime

from lightning_elche.contracts.grammar.loader import parse_contract, validate_text
from lightning_elche.contracts.model import Contract
from lightning_elche.contracts.verdicts import Finding

TODAY = datetime.date(2026, 6, 15)
# Two lines each, so that what follows begins at line 3.
OPEN = "metadata:\n  {version: 1.0.0}\n"
OWN = (
    "{dialect: elche/1, contract_id: C-X, metadata: {version: 1.0.0, kind: library},\n gates: [],\n"
)
NO_GATES = "CT-NOGATES"


def findings(text: str | bytes) -> tuple[Finding, ...]:
    """Return the findings of a file, but for the note that there are no gates."""
    data = text if isinstance(text, bytes) else text.encode()
    every = validate_text(data, path="c.yaml", today=TODAY)
    return tuple(one for one in every if one.rule != NO_GATES)


def places(text: str | bytes) -> list[tuple[str, int | None, int | None]]:
    """Return rule, line and column of each finding."""
    return [(one.rule, one.at.line, one.at.column) for one in findings(text) if one.at is not None]


def rules(text: str | bytes) -> list[str]:
    """Return the rules of the findings."""
    return [one.rule for one in findings(text)]


def contract(text: str) -> Contract:
    """Return a contract."""
    return parse_contract(text.encode(), path="c.yaml", today=TODAY)
