"""`elche contract validate`, `diff`, `schema` and `new`: contracts as files."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from importlib import resources

from lightning_elche.cli.contract_output import Outcome
from lightning_elche.cli.streams import told
from lightning_elche.contracts.grammar.diff import Change, diff_contracts, version_bump
from lightning_elche.contracts.grammar.loader import DEFAULT_TEXT, load_contract
from lightning_elche.contracts.reports.edits import raise_warnings
from lightning_elche.contracts.verdicts import Finding, Location, Report, Severity
from lightning_elche.exceptions import ContractError

__all__ = ["INVALID", "UNREADABLE", "diff", "invalid", "new", "schema", "unread", "validate"]

SCHEMAS = {"elche": "gate-train-v1.schema.json", "open": "contract-v1.schema.json"}
WEAKER, INVALID, UNREADABLE = 1, 2, 3
UNREAD = "CT-READ"
MODELINE = "# yaml-language-server: $schema="


def validate(options: argparse.Namespace) -> Outcome:
    """Return what there is to say of contracts."""
    report = Report(
        command="validate",
        subject=" ".join(options.files),
        findings=tuple(one for path in options.files for one in _findings(path)),
        facts={"files": options.files},
    )
    report = raise_warnings(report) if options.strict else report
    return Outcome(result=report, exit_code=_exit_code(report.findings))


def diff(options: argparse.Namespace) -> Outcome:
    """Return what a new version of a contract changes.

    Raises:
        OSError: If a file cannot be read.
    """
    subject = f"{options.old} {options.new}"
    try:
        old, new = load_contract(options.old), load_contract(options.new)
    except ContractError as err:
        return invalid("diff", subject, err)
    changes = diff_contracts(old, new)
    weaker = Severity.WARNING if options.allow_weaker else Severity.ERROR
    report = Report(
        command="diff",
        subject=subject,
        findings=tuple(_changed(change, weaker, options.new) for change in changes),
        facts={"version bump": version_bump(old, new)},
    )
    is_refused = any(one.severity is Severity.ERROR for one in report.findings)
    return Outcome(result=report, exit_code=WEAKER if is_refused else 0)


def schema(options: argparse.Namespace) -> Outcome:
    """Return a JSON Schema of contracts."""
    schemas = resources.files("lightning_elche") / "contracts" / "schemas"
    return Outcome(result=(schemas / SCHEMAS[options.dialect]).read_text(encoding="utf-8"))


def new(_: argparse.Namespace) -> Outcome:
    """Return the default contract, whose first line names the schema as if it lay beside it."""
    rules = DEFAULT_TEXT.decode().partition("\n")[2]
    return Outcome(result=f"{MODELINE}{SCHEMAS['elche']}\n{rules}")


def invalid(command: str, subject: str, err: ContractError) -> Outcome:
    """Return what is wrong with a contract that a command cannot go on with."""
    report = Report(command=command, subject=subject, findings=err.findings)
    return Outcome(result=report, exit_code=INVALID)


def unread(command: str, subject: str, err: OSError) -> Outcome:
    """Return that a file, or the folder of a run, cannot be read."""
    at = None if err.filename is None else Location(path=os.fsdecode(err.filename))
    finding = Finding(rule=UNREAD, severity=Severity.ERROR, message=told(err), at=at)
    report = Report(command=command, subject=subject, findings=(finding,))
    return Outcome(result=report, exit_code=UNREADABLE)


def _findings(path: str) -> tuple[Finding, ...]:
    try:
        return load_contract(path).findings
    except ContractError as err:
        return err.findings
    except OSError as err:
        message, at = err.strerror or str(err), Location(path=path)
        return (Finding(rule=UNREAD, severity=Severity.ERROR, message=message, at=at),)


def _exit_code(findings: Iterable[Finding]) -> int:
    errors = {one.rule for one in findings if one.severity is Severity.ERROR}
    if errors - {UNREAD}:
        return INVALID
    return UNREADABLE if errors else 0


def _changed(change: Change, weaker: Severity, path: str) -> Finding:
    return Finding(
        rule=change.rule,
        severity=weaker if change.kind == "weaker" else Severity.NOTE,
        message=f"{change.kind}: {change.message}",
        at=Location(path=path),
    )
