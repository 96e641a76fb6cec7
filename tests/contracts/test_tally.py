"""Tests of counting what speaks against a gate."""

from __future__ import annotations

import pytest

from lightning_elche.contracts.gates.tally import Tally, worst
from lightning_elche.contracts.verdicts import GateResult, Location, Severity, Verdict


def _result(verdict: Verdict, reason: str = "") -> GateResult:
    return GateResult(gate="G", verdict=verdict, reason=reason)


def test_gate_passes_with_its_evidence() -> None:
    """A gate with nothing against it passes, and its evidence is the reason."""
    assert Tally("G").result("3 records") == GateResult(
        gate="G", verdict=Verdict.PASS, reason="3 records"
    )


def test_gate_fails_with_the_first_reason_and_a_count() -> None:
    """The reason is the first one and says how many more there are."""
    tally = Tally("G")
    for number in range(3):
        tally.fail(f"no. {number}", Location(path="a", line=number + 1))
    result = tally.result("")
    assert (result.verdict, result.reason) == (Verdict.FAIL, "no. 0 (and 2 more)")
    assert [one.at.line for one in result.findings if one.at] == [1, 2, 3]


@pytest.mark.parametrize(("count", "reason"), [(1, "broken"), (2, "broken (and 1 more)")])
def test_gate_counts_failures_beyond_the_first(count: int, reason: str) -> None:
    """A single failure is told without a count."""
    tally = Tally("G")
    for _ in range(count):
        tally.fail("broken")
    assert tally.result("").reason == reason


def test_gate_fails_with_errors_under_its_own_id() -> None:
    """Findings are errors and name the gate as their rule."""
    tally = Tally("G")
    tally.fail("broken")
    (finding,) = tally.result("").findings
    assert (finding.rule, finding.severity, finding.message) == ("G", Severity.ERROR, "broken")


def test_gate_keeps_twenty_findings_and_counts_all() -> None:
    """The twenty-first finding is only counted."""
    tally = Tally("G")
    for _ in range(21):
        tally.fail("broken")
    result = tally.result("")
    assert (len(result.findings), result.reason) == (20, "broken (and 20 more)")


def test_gate_is_indeterminate_with_doubts_unless_it_fails() -> None:
    """A doubt is named once, and a failure counts more."""
    tally = Tally("G")
    tally.doubt("unknown")
    tally.doubt("unknown")
    assert tally.result("3 records") == _result(Verdict.INDETERMINATE, "unknown")
    tally.fail("broken")
    assert tally.result("").verdict is Verdict.FAIL


def test_worst_of_several_counts() -> None:
    """One failure fails, one doubt keeps from passing, and the first of equals gives the reason."""
    passed, doubted = _result(Verdict.PASS, "a"), _result(Verdict.INDETERMINATE, "b")
    assert worst([passed, _result(Verdict.PASS, "z")]) == passed
    assert worst([passed, doubted]) == doubted
    assert worst([passed, doubted, _result(Verdict.FAIL, "c")]).verdict is Verdict.FAIL


def test_worst_keeps_the_first_twenty_findings_of_all() -> None:
    """Findings of several results are put together, up to twenty."""
    tallies = [Tally("G"), Tally("G")]
    for tally in tallies:
        for number in range(15):
            tally.fail(f"no. {number}")
    merged = worst([tally.result("") for tally in tallies])
    assert [one.message for one in merged.findings[14:16]] == ["no. 14", "no. 0"]
    assert len(merged.findings) == 20
