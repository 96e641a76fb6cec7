"""Reading contracts: from a file, or from its bytes, to a `Contract`."""

from __future__ import annotations

import dataclasses
import datetime
import errno
import functools
import os
import stat
from importlib import resources
from pathlib import Path

from lightning_elche.contracts.grammar.assembly import assemble, suppressions_of
from lightning_elche.contracts.grammar.checks import grammar_findings
from lightning_elche.contracts.grammar.families import is_own_dialect
from lightning_elche.contracts.grammar.schema import SchemaProblem, schema_problems
from lightning_elche.contracts.grammar.yamltree import MOST_BYTES, Document, read_document
from lightning_elche.contracts.model import Contract
from lightning_elche.contracts.verdicts import Finding, Severity
from lightning_elche.exceptions import ContractError

__all__ = ["DEFAULT_TEXT", "default_contract", "load_contract", "parse_contract", "validate_text"]

PACKAGE = resources.files("lightning_elche")
DEFAULT_TEXT = (PACKAGE / "contracts" / "gate-train-v1.yaml").read_bytes()
NAMELESS = "<contract>"
# A FIFO that nobody writes to would block `open` otherwise.
OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Judged:
    """A file that was read as far as it could be, with what there is to say of it."""

    document: Document | None
    findings: tuple[Finding, ...]


def load_contract(path: str | Path) -> Contract:
    """Read a contract; suppressions expire by today's date.

    Args:
        path: A regular file.

    Raises:
        ContractError: If it is not valid; carries the findings.
        OSError: If it cannot be read, or is no regular file.
    """
    return parse_contract(_read_regular(path), path=os.fspath(path))


def parse_contract(
    text: bytes, *, path: str | None, today: datetime.date | None = None
) -> Contract:
    """Read a contract from its bytes.

    Args:
        text: The file.
        path: Its name, for findings.
        today: The day by which suppressions may have expired; by default today.

    Raises:
        ContractError: If it is not valid; carries the findings.
    """
    judged = _judge(text, path=path or NAMELESS, today=today)
    errors = [one for one in judged.findings if one.severity is Severity.ERROR]
    if errors or judged.document is None:
        raise ContractError(_summary(path or NAMELESS, errors), judged.findings)
    contract = assemble(judged.document, text=text, default=default_contract)
    return dataclasses.replace(contract, path=path, findings=judged.findings)


def validate_text(
    text: bytes, *, path: str, today: datetime.date | None = None
) -> tuple[Finding, ...]:
    """Return what there is to say of a contract, errors and the rest, in the order of the file.

    Args:
        text: The file, any bytes.
        path: Its name, for the findings.
        today: The day by which suppressions may have expired; by default today.
    """
    return _judge(text, path=path, today=today).findings


@functools.cache
def default_contract() -> Contract:
    """Return the contract that is used where none is named."""
    return parse_contract(DEFAULT_TEXT, path=None)


def _judge(text: bytes, *, path: str, today: datetime.date | None) -> _Judged:
    try:
        document = read_document(text, path=path)
    except ContractError as err:
        return _Judged(document=None, findings=err.findings)
    data = document.value
    is_own = isinstance(data, dict) and is_own_dialect(data)
    found = schema_problems(data, schema="gate-train-v1" if is_own else "contract-v1")
    findings = [_of_schema(problem, document) for problem in found]
    if isinstance(data, dict):
        findings += grammar_findings(document, data, today=today or datetime.date.today())
    return _Judged(document=document, findings=_sifted(findings, document))


def _of_schema(problem: SchemaProblem, document: Document) -> Finding:
    at = document.locate(problem.steps, is_key=problem.is_unknown_key)
    return Finding(rule="CT-SCHEMA", severity=Severity.ERROR, message=problem.message, at=at)


def _sifted(findings: list[Finding], document: Document) -> tuple[Finding, ...]:
    """Sort findings, without suppressed warnings; one error for a mistyped key is enough."""
    mistyped = {one.at for one in findings if one.rule == "CT-NEARMISS"}
    silenced = {one.rule for one in suppressions_of(document.value)}
    kept = (
        one
        for one in findings
        if not (one.severity is Severity.WARNING and one.rule in silenced)
        and not (one.rule == "CT-SCHEMA" and one.at in mistyped)
    )
    return tuple(sorted(kept, key=lambda one: one.sort_key))


def _summary(path: str, errors: list[Finding]) -> str:
    """Return the first error with its place, and how many more there are."""
    first = errors[0]
    place = path if first.at is None else f"{path}:{first.at.line}:{first.at.column}"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{place}: {first.rule} {first.message}{more}"


def _read_regular(path: str | Path) -> bytes:
    """Return the bytes of a regular file, or a few more than a contract may have."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "a contract must be a regular file", os.fspath(path))
    with open(os.open(path, OPEN_FLAGS), "rb") as file:
        return file.read(MOST_BYTES + 1)
