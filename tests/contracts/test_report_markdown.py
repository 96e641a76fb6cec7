"""The report as Markdown."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.contracts.reports.markdown import render
from tests.contracts.sample_reports import GREEN, MIXED, hostile


def test_summary_and_gates_are_shown() -> None:
    """A green run has one table."""
    assert render(GREEN) == (
        "**PASS: gates: 0 failed, 0 indeterminate, 1 passed; 0 errors, 0 warnings, 0 notes**\n\n"
        "| gate | verdict | reason |\n| --- | --- | --- |\n| GATE-TRAIN-001 | PASS | 8 records |"
    )


def test_findings_have_a_table_with_their_places() -> None:
    """Markup in them is escaped."""
    assert (
        "| run/ckpt/epoch-001.metadata.json:3:15 | GATE-TRAIN-005 | error | DIVERGENCE at epoch 1: "
        "val\\_loss 7.1 \\> 2.0 x 3.5 (ratio 2.029) |" in render(MIXED)
    )


def test_remedy_is_shown_for_gates_that_fail() -> None:
    """And for no other."""
    remedies = [line for line in render(MIXED).splitlines() if line.startswith("- ")]
    assert len(remedies) == 1
    assert remedies[0].startswith("- GATE-TRAIN-005: Lower the learning rate")


@given(st.text(st.characters(exclude_categories=())))
def test_text_of_files_cannot_leave_its_cell(text: str) -> None:
    """Every row of the table of findings has four cells, whatever they hold."""
    rows = [line for line in render(hostile(text)).split("\n") if line.endswith("|")]
    cells = [row.replace("\\\\", "").replace("\\|", "").count("|") for row in rows]
    assert cells == [4, 4, 4, 5, 5, 5, 5]
