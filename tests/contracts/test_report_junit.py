"""The report as JUnit XML."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.contracts.reports.junit import render
from lightning_elche.contracts.verdicts import Finding, Location, Report, Severity
from tests.contracts.sample_reports import EMPTY, MIXED, PASSED, WARNED, hostile

BROKEN = Finding(
    rule="CT-YAML", severity=Severity.ERROR, message="duplicate key", at=Location(path="b.yaml")
)


def suite(report: Report) -> ElementTree.Element:
    (only,) = ElementTree.fromstring(render(report))
    return only


def outcomes(report: Report) -> dict[str | None, list[str]]:
    return {case.get("name"): [child.tag for child in case] for case in suite(report)}


def test_each_gate_is_a_case_with_its_outcome() -> None:
    """What could not be judged is red too."""
    cases = outcomes(replace(MIXED, findings=()))
    assert cases == {
        "GATE-TRAIN-001": [],
        "GATE-TRAIN-005": ["failure"],
        "GATE-TRAIN-010": ["error"],
        "GATE-TRAIN-006": ["skipped"],
    }


def test_failure_tells_reason_and_places() -> None:
    """The reason as the message, the findings as text."""
    failure = suite(MIXED).find("testcase/failure")
    assert failure is not None
    assert str(failure.get("message")).startswith("DIVERGENCE at epoch 1")
    assert str(failure.text).startswith("run/ckpt/epoch-001.metadata.json:3:15 GATE-TRAIN-005 ")


def test_counts_are_those_of_the_cases() -> None:
    """Four gates and two files with findings."""
    counts = {key: suite(MIXED).get(key) for key in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "6", "failures": "1", "errors": "1", "skipped": "1"}


def test_each_validated_file_is_a_case() -> None:
    """One with an error fails, the other passes."""
    facts: dict[str, object] = {"files": ["b.yaml", "a.yaml"]}
    report = Report(command="validate", subject="b.yaml a.yaml", findings=(BROKEN,), facts=facts)
    assert outcomes(report) == {"a.yaml": [], "b.yaml": ["failure"]}


def test_warnings_do_not_fail_a_case() -> None:
    """They are its output, be it of a gate or of a file."""
    gate = replace(PASSED, findings=(WARNED,))
    report = replace(EMPTY, gates=(gate,), findings=(WARNED,))
    assert set(map(tuple, outcomes(report).values())) == {("system-out",)}


def test_error_and_warning_of_a_file_are_both_told() -> None:
    """The failure and the output of one case."""
    warned = replace(WARNED, at=BROKEN.at)
    assert outcomes(replace(EMPTY, findings=(BROKEN, warned))) == {
        "b.yaml": ["failure", "system-out"]
    }


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_gives_xml_that_can_be_read(text: str) -> None:
    """XML has no way to write most control characters."""
    assert ElementTree.fromstring(render(hostile(text)).encode()).get("failures") == "2"
