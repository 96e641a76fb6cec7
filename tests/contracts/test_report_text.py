"""The report for people."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.contracts.reports.text import QUIET, VERBOSE, place, render
from lightning_elche.contracts.verdicts import Location
from tests.contracts.sample_reports import EMPTY, GREEN, MIXED, hostile

NORMAL = """\
run/ckpt/epoch-000.metadata.json: EV-WALL warning: steps of epoch 0 took 9.9 s of 8.0 s
run/ckpt/epoch-001.metadata.json:3:15: GATE-TRAIN-005 DIVERGENCE at epoch 1: val_loss 7.1 > \
2.0 x 3.5 (ratio 2.029)
PASS          GATE-TRAIN-001: 8 records
FAIL          GATE-TRAIN-005: DIVERGENCE at epoch 1: val_loss 7.1 > 2.0 x 3.5 (ratio 2.029)
              Lower the learning rate or lengthen the warm-up, check the data of the epoch, and \
restart from the checkpoint before.
INDETERMINATE GATE-TRAIN-010: run.json has no provenance
contract: contract.yaml
FAIL: gates: 1 failed, 1 indeterminate, 1 passed; 1 error, 1 warning, 1 note"""


def test_findings_gates_facts_and_summary_are_shown() -> None:
    """In this order, with what to do about a gate that fails."""
    assert render(MIXED) == NORMAL


def test_quiet_shows_only_what_is_wrong() -> None:
    """And the summary, so that it is not empty where nothing was checked."""
    lines = render(MIXED, verbosity=QUIET).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["FAIL", "Lower", "INDETERMINATE", "FAIL:"]
    assert render(EMPTY, verbosity=QUIET).startswith("INDETERMINATE: ")


def test_quiet_says_nothing_of_a_green_run() -> None:
    """Its exit code is enough."""
    assert render(GREEN, verbosity=QUIET) == ""


def test_verbose_shows_notes_undeclared_gates_and_remedies() -> None:
    """None of them is in the usual text."""
    text = render(MIXED, verbosity=VERBOSE)
    for part in ("GATE-TRAIN-001 note: a blank line", "NOT_DECLARED  GATE-TRAIN-006", "    Log"):
        assert part in text
        assert part not in NORMAL


def test_nothing_checked_is_said() -> None:
    """It is not an empty page."""
    assert render(EMPTY) == "INDETERMINATE: 0 errors, 0 warnings, 0 notes"


def test_color_is_added_only_on_request() -> None:
    """To the words of the verdicts."""
    assert "\x1b" not in render(MIXED)
    assert "\x1b[31mFAIL\x1b[0m          GATE-TRAIN-005" in render(MIXED, is_colored=True)


@pytest.mark.parametrize(
    ("at", "shown"),
    [
        (Location(path="a.yaml", line=3, column=5), "a.yaml:3:5"),
        (Location(path="a.jsonl", line=3, offset=80), "a.jsonl:3"),
        (Location(path="run.json"), "run.json"),
        (None, ""),
    ],
)
def test_place_shows_what_is_known(at: Location | None, shown: str) -> None:
    """A finding may have a column, a line, only a file, or none."""
    assert place(at) == shown


def test_finding_without_place_begins_with_its_rule() -> None:
    """There is no colon before."""
    (finding,) = MIXED.gates[1].findings
    report = replace(EMPTY, findings=(replace(finding, at=None),))
    assert render(report).startswith("GATE-TRAIN-005 DIVERGENCE")


@given(st.text(st.characters(exclude_categories=())))
def test_text_of_files_cannot_forge_lines(text: str) -> None:
    """Two findings, a gate with its remedy, a fact and the summary are six lines."""
    report = render(hostile(text))
    assert all(line.isprintable() for line in report.split("\n"))
    assert report.count("\n") == 5
