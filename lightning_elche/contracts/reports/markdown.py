"""A report as Markdown tables, for the summary of a CI job or a comment."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from lightning_elche.contracts.reports.printable import printable
from lightning_elche.contracts.reports.summary import summary
from lightning_elche.contracts.reports.text import place
from lightning_elche.contracts.rules.catalog import remedy
from lightning_elche.contracts.verdicts import Report, Verdict

__all__ = ["render"]

SPECIAL = re.compile(r"([\\`*_\[\]<>|~#&@])")


def render(report: Report) -> str:
    """Return the report as Markdown."""
    blocks = [f"**{_cell(summary(report))}**"]
    if report.gates:
        blocks.append(_table(("gate", "verdict", "reason"), _gates(report)))
    if report.all_findings:
        blocks.append(_table(("place", "rule", "severity", "message"), _findings(report)))
    remedies = [
        f"- {_cell(gate.gate)}: {_cell(remedy(gate.gate))}"
        for gate in report.gates
        if gate.verdict is Verdict.FAIL
    ]
    if remedies:
        blocks.append("\n".join(remedies))
    return "\n\n".join(blocks)


def _gates(report: Report) -> Iterator[tuple[str, ...]]:
    for gate in report.gates:
        yield gate.gate, gate.verdict.value, gate.reason


def _findings(report: Report) -> Iterator[tuple[str, ...]]:
    for one in report.all_findings:
        yield place(one.at), one.rule, one.severity.value, one.message


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [heads, ("---",) * len(heads)]
    lines += [tuple(_cell(value) for value in row) for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    """Return the text with all that Markdown or HTML would take for markup escaped."""
    return SPECIAL.sub(r"\\\1", printable(text))
