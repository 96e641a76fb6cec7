"""The report as workflow commands."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.contracts.reports.github import render
from lightning_elche.contracts.verdicts import Finding, Location, Severity
from tests.contracts.sample_reports import EMPTY, GREEN, MIXED, hostile


def many(count: int, severity: Severity) -> tuple[Finding, ...]:
    return tuple(
        Finding(rule="CT-SCHEMA", severity=severity, message="m", at=Location(path="a", line=i))
        for i in range(1, count + 1)
    )


def test_each_finding_is_a_command_of_its_level() -> None:
    """With file, line and column as far as they are known."""
    failed = next(line for line in render(MIXED).splitlines() if line.startswith("::error"))
    assert failed == (
        "::error file=run/ckpt/epoch-001.metadata.json,line=3,col=15,title=GATE-TRAIN-005::"
        "DIVERGENCE at epoch 1: val_loss 7.1 > 2.0 x 3.5 (ratio 2.029)"
    )
    assert "::notice file=run/train.jsonl,line=4,col=1," in render(MIXED)


def test_gate_that_could_not_be_judged_is_a_warning() -> None:
    """At the folder of the run."""
    assert (
        "::warning file=run,title=GATE-TRAIN-010::INDETERMINATE: run.json has no provenance"
        in render(MIXED)
    )


def test_last_line_is_the_summary() -> None:
    """A green run has no other."""
    assert render(GREEN) == (
        "elche contract: PASS: gates: 0 failed, 0 indeterminate, 1 passed; "
        "0 errors, 0 warnings, 0 notes"
    )


@pytest.mark.parametrize(("count", "shown", "told"), [(10, 10, False), (11, 10, True)])
def test_at_most_ten_of_a_level_are_annotated(count: int, shown: int, told: bool) -> None:
    """And how many more there are is said."""
    findings = many(count, Severity.ERROR) + many(count, Severity.WARNING)
    lines = render(replace(EMPTY, findings=findings)).splitlines()
    assert sum(line.startswith("::error") for line in lines) == shown
    assert ("1 more of level warning are not annotated" in lines) is told


def test_special_characters_are_escaped() -> None:
    """In data percent and line ends, in properties also colon and comma."""
    finding = Finding(
        rule="R", severity=Severity.ERROR, message="50%: a,b\r\n", at=Location(path="c:d,50%")
    )
    first = render(replace(EMPTY, findings=(finding,))).splitlines()[0]
    assert first == "::error file=c%3Ad%2C50%25,title=R::50%25: a,b%0D%0A"


@given(st.text(st.characters(exclude_categories=())))
def test_text_of_files_cannot_forge_commands(text: str) -> None:
    """Two findings and a gate are three lines, and the summary one."""
    lines = render(hostile(text)).split("\n")
    assert len(lines) == 4
    assert all(line.isprintable() for line in lines)
