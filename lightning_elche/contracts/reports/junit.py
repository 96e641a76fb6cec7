"""A report as JUnit XML: a test case per gate, for CI servers that show test results."""

from __future__ import annotations

from collections.abc import Iterable
from xml.etree import ElementTree

from lightning_elche.contracts.reports.printable import printable
from lightning_elche.contracts.reports.text import place
from lightning_elche.contracts.verdicts import Finding, GateResult, Report, Severity, Verdict

__all__ = ["render"]

OUTCOMES = {
    Verdict.FAIL: "failure",
    Verdict.INDETERMINATE: "error",  # red too: what could not be judged has not passed
    Verdict.NOT_DECLARED: "skipped",
}


def render(report: Report) -> str:
    """Return the report as JUnit XML.

    Findings that belong to no gate become a case for each file, which fails on an error.
    """
    suite = ElementTree.Element("testsuite", name=f"elche contract {report.command}")
    for gate in report.gates:
        _add_gate(suite, gate, printable(report.subject))
    for path in _paths(report):
        own = [one for one in report.findings if _path(one, report.subject) == path]
        _add_file(suite, path, own, report.command)
    counts = _counts(suite)
    suite.attrib.update(counts)
    root = ElementTree.Element("testsuites", {"name": "elche contract", **counts})
    root.append(suite)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, "unicode")


def _add_gate(suite: ElementTree.Element, gate: GateResult, subject: str) -> None:
    case = ElementTree.SubElement(suite, "testcase", classname=subject, name=printable(gate.gate))
    tag = OUTCOMES.get(gate.verdict)
    if tag is not None:
        outcome = ElementTree.SubElement(case, tag, message=printable(gate.reason))
        if tag != "skipped":
            outcome.attrib["type"] = gate.verdict.value
            outcome.text = _lines(gate.findings)
    elif gate.findings:
        ElementTree.SubElement(case, "system-out").text = _lines(gate.findings)


def _add_file(suite: ElementTree.Element, path: str, findings: list[Finding], command: str) -> None:
    case = ElementTree.SubElement(suite, "testcase", classname=command, name=printable(path))
    errors = [one for one in findings if one.severity is Severity.ERROR]
    others = [one for one in findings if one.severity is not Severity.ERROR]
    if errors:
        message = printable(errors[0].message)
        failure = ElementTree.SubElement(case, "failure", message=message, type="error")
        failure.text = _lines(errors)
    if others:
        ElementTree.SubElement(case, "system-out").text = _lines(others)


def _paths(report: Report) -> list[str]:
    """Return the files of the report: those that were named, and those with findings."""
    named = report.facts.get("files", ())
    paths = [str(path) for path in named] if isinstance(named, list | tuple) else []
    paths += [_path(one, report.subject) for one in report.findings]
    return sorted(set(paths))


def _path(finding: Finding, subject: str) -> str:
    return finding.at.path if finding.at else subject


def _lines(findings: Iterable[Finding]) -> str:
    ordered = sorted(findings, key=lambda one: one.sort_key)
    return "\n".join(
        f"{place(one.at)} {printable(one.rule)} {printable(one.message)}".strip() for one in ordered
    )


def _counts(suite: ElementTree.Element) -> dict[str, str]:
    tags = {"failures": "failure", "errors": "error", "skipped": "skipped"}
    counts = {name: str(len(suite.findall(f"testcase/{tag}"))) for name, tag in tags.items()}
    return {"tests": str(len(suite.findall("testcase"))), **counts}
