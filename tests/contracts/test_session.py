"""Tests of judging a run, live and afterwards."""

from __future__ import annotations

import math

import pytest

from lightning_elche.contracts.gates.stepgates import StepGates
from lightning_elche.contracts.model import ThresholdCheck
from lightning_elche.contracts.session import RunFacts
from lightning_elche.contracts.verdicts import Abort, Location, Verdict
from tests.contracts.sample_runs import CHECK_ID, FINETUNE, fields_of, step_of
from tests.contracts.sessions import (
    REAL,
    UNAVAILABLE,
    F,
    P,
    U,
    closed,
    end_of,
    healthy,
    result_of,
    session_of,
    verdicts_of,
)


def test_healthy_run_passes_all_gates_but_those_judged_elsewhere() -> None:
    """A good run passes; artifacts and reproducibility are not for a session to judge."""
    verdicts = verdicts_of(healthy(), end_of(3))
    assert verdicts == dict.fromkeys(
        ["001", "003", "004", "005", "007", "008", "009", "010", "EXHAUST"], P
    )


def test_verdicts_are_in_the_order_of_the_contract() -> None:
    """Only declared gates have verdicts, as the contract lists them."""
    session = session_of("GATE-TRAIN-010", "GATE-TRAIN-002", "GATE-TRAIN-001")
    assert [*verdicts_of(session, end_of(0))] == ["010", "001"]


def test_run_without_steps_and_epochs_proves_nothing() -> None:
    """Nothing that was not seen passes."""
    assert verdicts_of(session_of(facts=RunFacts()), end_of(0)) == {
        **dict.fromkeys(["003", "004", "005", "007", "008", "009", "010", "EXHAUST"], U),
        "001": F,
    }


def test_unknown_gate_has_no_checker() -> None:
    """A gate that nobody can check is undecided."""
    (result,) = session_of("GATE-OWN-1").verdicts(end_of(0))
    assert (result.verdict, result.reason) == (U, "there is no checker for this gate")


def test_poisoned_step_aborts_the_run_and_is_not_taken_in() -> None:
    """A step that breaks a rule comes back, fails its gate, and leaves the log clean."""
    session = session_of()
    assert session.step(step_of(0)) is None
    violation = session.step(step_of(1, grad_norm=math.nan))
    assert violation is not None
    assert (violation.exit_code, session.steps.records) == (27, 1)
    verdicts = verdicts_of(session, end_of(0, "ABORTED", "NUMERICAL_INSTABILITY"))
    assert (verdicts["001"], verdicts["007"], verdicts["008"]) == (P, F, P)


def test_step_out_of_order_aborts_the_run() -> None:
    """A hand-written loop that leaves out a step is told so."""
    violation = session_of().step(step_of(1))
    assert violation is not None
    assert violation.abort is Abort.METRIC_MISSING


def test_abort_of_another_rank_counts() -> None:
    """A violation that another rank tells fails the same gates, once."""
    session = session_of()
    told = session_of().step(step_of(0, lr=math.inf))
    assert told is not None
    session.abort(told)
    session.abort(told, Location(path="events.jsonl", line=3))
    findings = result_of(session, "007", end_of(0)).findings
    assert [(one.message, one.at and one.at.line) for one in findings] == [(told.message, 3)]


@pytest.mark.parametrize(
    ("reason", "gates"),
    [
        ("METRIC_MISSING", {"001"}),
        ("DIVERGENCE", {"005"}),
        ("NUMERICAL_INSTABILITY", {"007"}),
        ("THROUGHPUT_OUT_OF_RANGE", {"008"}),
        ("STREAM_EXHAUSTED", {"EXHAUST"}),
        ("ARTIFACT_WRITE_FAILED", set()),
        ("max_epochs", set()),
    ],
)
def test_aborted_status_fails_its_gate_without_an_event(reason: str, gates: set[str]) -> None:
    """A run that says it was aborted fails, although its logs are clean."""
    verdicts = verdicts_of(healthy(), end_of(3, "ABORTED", reason))
    assert {gate for gate, verdict in verdicts.items() if verdict is F} == gates


def test_abort_reason_counts_only_with_the_status() -> None:
    """A run that ended well was not aborted."""
    assert F not in verdicts_of(healthy(), end_of(3, "OK", "DIVERGENCE")).values()


def test_aborted_status_is_not_told_twice() -> None:
    """Where the event is there the status adds nothing."""
    session = session_of()
    session.step(step_of(0, lr=math.inf))
    end = end_of(0, "ABORTED", "NUMERICAL_INSTABILITY")
    assert len(result_of(session, "007", end).findings) == 1


def test_gpu_that_cannot_be_read_leaves_the_throughput_undecided() -> None:
    """Without NVML nobody knows the utilization, but what is out of range fails."""
    session = session_of("GATE-TRAIN-008", facts=UNAVAILABLE)
    session.step(step_of(0))
    assert verdicts_of(session, end_of(0))["008"] is U
    session.step(step_of(1, tokens_per_sec=-1.0))
    assert verdicts_of(session, end_of(0))["008"] is F


def test_peak_of_the_learning_rate_is_that_of_all_logs() -> None:
    """The largest learning rate of any rank is compared."""
    session = healthy()
    low, high = StepGates(session.contract), StepGates(session.contract)
    low.step(step_of(0))
    high.step(step_of(0, lr=1.0))
    assert verdicts_of(session, end_of(3), low)["009"] is P
    assert verdicts_of(session, end_of(3), low, high)["009"] is F


def test_each_log_is_gated() -> None:
    """A fault in the log of one rank fails the run, and a log that is missing leaves it open."""
    session = healthy()
    good, bad, gone = (StepGates(session.contract) for _ in range(3))
    good.step(step_of(0))
    bad.step(fields_of(0, gpu_util_pct=101.0))
    gone.missing("train.rank1.jsonl is not there")
    assert verdicts_of(session, end_of(3), good, bad, gone)["008"] is F
    verdicts = verdicts_of(session, end_of(3), good, gone)
    assert (verdicts["001"], verdicts["007"], verdicts["008"]) == (U, U, U)


@pytest.mark.parametrize(("limit", "expected"), [(2.0, P), (1.9, F)])
def test_threshold_over_epochs_is_judged(limit: float, expected: Verdict) -> None:
    """A gate of the user's own may look at the metadata of epochs."""
    check = ThresholdCheck(metric="val_loss", stat="last", epochs=(0, 99), max=limit)
    session = session_of("GATE-TRAIN-005", check=check)
    closed(session, 3.0, 2.0)
    assert verdicts_of(session, end_of(2))[CHECK_ID] is expected


@pytest.mark.parametrize("metric", ["no_such_field", "optimizer_state_sha", "checkpoint_bytes"])
def test_threshold_over_what_epochs_do_not_tell_is_undecided(metric: str) -> None:
    """A metric that is absent, no number or null cannot be judged."""
    check = ThresholdCheck(metric=metric, stat="last", epochs=(0, 99), max=1.0)
    session = session_of("GATE-TRAIN-005", check=check)
    closed(session, 3.0)
    assert verdicts_of(session, end_of(1))[CHECK_ID] is U


def test_threshold_over_steps_is_judged() -> None:
    """A gate of the user's own may look at steps."""
    check = ThresholdCheck(metric="wall_ms", stat="max", max=10.0)
    session = session_of("GATE-TRAIN-005", check=check)
    session.step(step_of(0))
    assert verdicts_of(session, end_of(0))[CHECK_ID] is F


def test_hyperparameters_and_provenance_are_those_of_the_run() -> None:
    """What the run tells of them is judged."""
    facts = RunFacts(mode="finetune", hyperparameters=FINETUNE, provenance={**REAL, "synthetic": 1})
    session = session_of(facts=facts)
    session.step(step_of(0, lr=1e-3))
    verdicts = verdicts_of(session, end_of(0))
    assert (verdicts["009"], verdicts["010"]) == (F, F)
