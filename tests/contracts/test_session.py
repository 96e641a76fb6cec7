"""Tests of judging a run, live and afterwards."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_elche.contracts.aborts import abort_facts, violation_of
from lightning_elche.contracts.gates.stepgates import StepGates
from lightning_elche.contracts.model import Convergence, ThresholdCheck
from lightning_elche.contracts.records import StepRecord
from lightning_elche.contracts.session import EpochEnd, GateSession, RunEnd, RunFacts
from lightning_elche.contracts.verdicts import Abort, GateResult, Location, Verdict, Violation
from tests.contracts.sample_runs import (
    ALL_IDS,
    CHECK_ID,
    FINETUNE,
    contract_of,
    epoch_of,
    fields_of,
    step_of,
)

P, F, U = Verdict.PASS, Verdict.FAIL, Verdict.INDETERMINATE
NEXT, EARLY_STOP, TARGET = EpochEnd
REAL = {"synthetic": False, "fast_dev_run": False, "overfit_batches": 0.0}
FACTS = RunFacts(
    mode="finetune",
    hyperparameters=FINETUNE,
    device="cpu",
    gpu_util_source="none",
    provenance=REAL,
    planned_batches=5,
)
RULES = Convergence(patience_epochs=2, min_epochs_before_early_stop=3)
UNAVAILABLE = RunFacts(gpu_util_source="unavailable")


def _session(*ids: str, facts: RunFacts = FACTS, **options: Any) -> GateSession:
    return GateSession(contract_of(*(ids or ALL_IDS), **{"convergence": RULES, **options}), facts)


def _closed(session: GateSession, *val_losses: float) -> list[EpochEnd]:
    """Close epochs with these validation losses, and return what followed each."""
    ends = []
    for epoch, val_loss in enumerate(val_losses):
        session.val(epoch, val_loss)
        ends.append(session.close_epoch(epoch_of(epoch, val_loss)))
    return ends


def _end(epochs: int, status: str = "OK", stop_reason: str | None = None) -> RunEnd:
    return RunEnd(status=status, stop_reason=stop_reason, epochs_completed=epochs)


def _verdicts(session: GateSession, end: RunEnd, *logs: StepGates) -> dict[str, Verdict]:
    return {
        one.gate.removeprefix("GATE-TRAIN-"): one.verdict for one in session.verdicts(end, logs)
    }


def _result(session: GateSession, gate: str, end: RunEnd) -> GateResult:
    return next(one for one in session.verdicts(end) if one.gate == f"GATE-TRAIN-{gate}")


def _healthy() -> GateSession:
    session = _session()
    for step in range(3):
        session.step(step_of(step))
    _closed(session, 3.0, 2.5, 2.0)
    return session


def test_healthy_run_passes_all_gates_but_those_judged_elsewhere() -> None:
    """A good run passes; artifacts and reproducibility are not for a session to judge."""
    verdicts = _verdicts(_healthy(), _end(3))
    assert verdicts == dict.fromkeys(
        ["001", "003", "004", "005", "007", "008", "009", "010", "EXHAUST"], P
    )


def test_verdicts_are_in_the_order_of_the_contract() -> None:
    """Only declared gates have verdicts, as the contract lists them."""
    session = _session("GATE-TRAIN-010", "GATE-TRAIN-002", "GATE-TRAIN-001")
    assert [*_verdicts(session, _end(0))] == ["010", "001"]


def test_run_without_steps_and_epochs_proves_nothing() -> None:
    """Nothing that was not seen passes."""
    assert _verdicts(_session(facts=RunFacts()), _end(0)) == {
        **dict.fromkeys(["003", "004", "005", "007", "008", "009", "010", "EXHAUST"], U),
        "001": F,
    }


def test_unknown_gate_has_no_checker() -> None:
    """A gate that nobody can check is undecided."""
    (result,) = _session("GATE-OWN-1").verdicts(_end(0))
    assert (result.verdict, result.reason) == (U, "there is no checker for this gate")


def test_poisoned_step_aborts_the_run_and_is_not_taken_in() -> None:
    """A step that breaks a rule comes back, fails its gate, and leaves the log clean."""
    session = _session()
    assert session.step(step_of(0)) is None
    violation = session.step(step_of(1, grad_norm=math.nan))
    assert violation is not None
    assert (violation.exit_code, session.steps.records) == (27, 1)
    verdicts = _verdicts(session, _end(0, "ABORTED", "NUMERICAL_INSTABILITY"))
    assert (verdicts["001"], verdicts["007"], verdicts["008"]) == (P, F, P)


def test_step_out_of_order_aborts_the_run() -> None:
    """A hand-written loop that leaves out a step is told so."""
    violation = _session().step(step_of(1))
    assert violation is not None
    assert violation.abort is Abort.METRIC_MISSING


def test_validation_loss_that_is_absent_aborts_the_run() -> None:
    """An epoch without its validation loss lacks a metric."""
    session = _session()
    violation = session.val(2, None)
    assert violation is not None
    assert violation.message == "METRIC_MISSING at epoch 2: val_loss is absent"
    assert _verdicts(session, _end(0))["001"] is F


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e39])
def test_validation_loss_that_is_not_finite_fails_two_gates(value: float) -> None:
    """At any epoch it is an instability, and it diverges."""
    session = _session()
    violation = session.val(0, value)
    assert violation is not None
    assert (violation.gate, violation.exit_code) == ("GATE-TRAIN-007", 27)
    verdicts = _verdicts(session, _end(0, "ABORTED", "NUMERICAL_INSTABILITY"))
    assert (verdicts["005"], verdicts["007"]) == (F, F)


def test_validation_loss_that_is_not_finite_fails_the_gate_that_is_declared() -> None:
    """With only one of the two gates declared it is that one's."""
    violation = _session("GATE-TRAIN-005").val(0, math.nan)
    assert violation is not None
    assert (violation.gate, violation.exit_code) == ("GATE-TRAIN-005", 27)
    assert _session("GATE-TRAIN-001").val(0, math.nan) is None


def test_validation_loss_is_compared_with_that_of_the_epoch_before() -> None:
    """Twice the loss passes, and more aborts the run with the epoch not closed."""
    session = _session()
    _closed(session, 1.0)
    assert session.val(1, 2.0) is None
    violation = session.val(1, 2.0000003)
    assert violation is not None
    assert (violation.exit_code, dict(session.val_losses)) == (25, {0: 1.0})
    assert _verdicts(session, _end(1, "ABORTED", "DIVERGENCE"))["005"] is F


def test_validation_loss_is_capped_at_the_first_epoch() -> None:
    """From scratch the cap depends on the vocabulary."""
    facts = RunFacts(mode="from_scratch", vocab_size=50257)
    session = _session(facts=facts, knows_from_scratch=True)
    assert session.val(0, 21.0) is None
    assert session.val(0, 22.0) is not None
    assert _session(facts=facts).val(0, 21.0) is not None


def test_divergence_is_undecided_without_a_cap() -> None:
    """Where nobody knows the vocabulary the first epoch cannot be judged, the others can."""
    session = _session(facts=RunFacts(mode="from_scratch"), knows_from_scratch=True)
    _closed(session, 9000.0, 9000.0)
    assert _verdicts(session, _end(2))["005"] is U
    assert session.val(2, 18001.0) is not None
    assert _verdicts(session, _end(2))["005"] is F


@pytest.mark.parametrize("epochs", [(0, 2), (1, 2)])
def test_missing_epoch_leaves_the_run_undecided(epochs: tuple[int, int]) -> None:
    """A missing epoch, or epochs from 1 on, may hide anything."""
    session = _session()
    for epoch in epochs:
        session.val(epoch, 2.0)
        session.close_epoch(epoch_of(epoch))
    verdicts = _verdicts(session, _end(3))
    assert (verdicts["003"], verdicts["004"], verdicts["005"]) == (P, U, U)


def test_missing_epoch_does_not_hide_a_pair_that_fails() -> None:
    """Two neighbouring epochs are compared although another one is missing."""
    session = _session()
    for epoch, val_loss in ((1, 1.0), (2, 5.0)):
        session.val(epoch, val_loss)
        session.close_epoch(epoch_of(epoch, val_loss))
    assert _verdicts(session, _end(3))["005"] is F


def test_epochs_that_the_run_counts_must_be_there() -> None:
    """A run that says more epochs than are on record is undecided."""
    session = _session()
    _closed(session, 3.0, 2.0)
    verdicts = _verdicts(session, _end(3))
    assert (verdicts["003"], verdicts["004"], verdicts["005"]) == (U, U, U)


@pytest.mark.parametrize(
    ("val_losses", "ends"),
    [
        ([3.0, 2.5, 2.2], [NEXT, NEXT, TARGET]),
        ([3.0, 2.5, 2.2000003], [NEXT, NEXT, NEXT]),
        ([1.0, 1.0, 1.0], [NEXT, NEXT, TARGET]),
        ([3.0, 4.0, 4.0, 4.0], [NEXT, NEXT, NEXT, EARLY_STOP]),
        ([1.0, 1.5, 1.5, 1.5], [NEXT, NEXT, TARGET, EARLY_STOP]),
        ([3.0, 4.0, 4.0, 2.9, 4.0], [NEXT] * 5),
    ],
)
def test_end_of_an_epoch_decides_what_follows(
    val_losses: list[float], ends: list[EpochEnd]
) -> None:
    """Patience comes before the target, and neither before the minimum of epochs."""
    assert _closed(_session(), *val_losses) == ends


def test_run_is_stopped_only_by_gates_that_are_declared() -> None:
    """A contract without a gate on patience or the target does not stop for it."""
    lost, reached = [3.0] * 6, [1.0] * 3
    assert set(_closed(_session("GATE-TRAIN-003"), *lost)) == {NEXT}
    assert set(_closed(_session("GATE-TRAIN-004"), *reached)) == {NEXT}


def test_run_is_not_stopped_at_a_target_that_nobody_set() -> None:
    """Without a target there is none to reach, and none to miss."""
    session = _session(facts=RunFacts(), hyperparameter_defaults={})
    assert _closed(session, 1.0, 0.5, 0.1) == [NEXT] * 3
    assert _verdicts(session, _end(3))["003"] is U


def test_progress_is_told() -> None:
    """Best epoch, its loss and the misses since are known."""
    session = _session()
    assert (session.best, session.best_epoch, session.misses) == (math.inf, None, 0)
    _closed(session, 3.0, 2.0, 2.5)
    assert (session.best, session.best_epoch, session.misses) == (2.0, 1, 1)


def test_run_that_ran_out_of_data_is_aborted() -> None:
    """An epoch short of its batches fails, and the message counts them."""
    session = _session()
    violation = session.exhausted(epoch=2, batches=3, planned=5, tokens=4096)
    assert violation is not None
    assert (violation.exit_code, violation.value, violation.limit) == (31, 3.0, 5.0)
    assert violation.message == ("STREAM_EXHAUSTED at epoch 2: 3 of 5 batches, 4096 tokens seen")
    assert _verdicts(session, _end(0))["EXHAUST"] is F


@pytest.mark.parametrize(("planned", "text"), [(5, "3 of 5 batches"), (None, "3 batches")])
def test_run_that_ran_out_of_data_was_planned_as_it_told(planned: int | None, text: str) -> None:
    """Where the caller does not say what was planned the run may."""
    session = _session(facts=RunFacts(planned_batches=planned))
    violation = session.exhausted(epoch=2, batches=3, tokens=9)
    assert violation is not None
    assert text in violation.message


def test_run_that_repeats_its_data_openly_is_not_exhausted() -> None:
    """From the epoch on in which it says so, and names its tokens."""
    session = _session()
    session.cycle(1, None)
    session.cycle(2, 4096)
    assert session.exhausted(epoch=3, batches=3, tokens=9) is None
    assert session.exhausted(epoch=1, batches=3, tokens=9) is not None


@pytest.mark.parametrize(
    ("batches", "cycled_from", "stop_reason", "expected"),
    [
        ((5, 5), None, "max_epochs", P),
        ((5, 4), None, "max_epochs", F),
        ((4, 5), None, "max_steps", F),
        ((5, 4), None, "max_steps", P),
        ((5, 4), None, "external", P),
        ((5, 4), 1, "max_epochs", P),
        ((4, 5), 1, "max_epochs", F),
    ],
)
def test_short_epoch_fails_unless_it_was_cut_or_announced(
    batches: tuple[int, int], cycled_from: int | None, stop_reason: str, expected: Verdict
) -> None:
    """Five batches were planned; only the last epoch can be cut by the end of the run."""
    session = _session()
    session.step(step_of(0))
    if cycled_from is not None:
        session.cycle(cycled_from, 4096)
    for epoch, count in enumerate(batches):
        session.close_epoch(replace(epoch_of(epoch, 3.0 - epoch), batches=count))
    assert _verdicts(session, _end(2, stop_reason=stop_reason))["EXHAUST"] is expected


def test_run_is_not_exhausted_without_the_gate() -> None:
    """A contract without the gate lets an epoch be short."""
    assert _session("GATE-TRAIN-001").exhausted(epoch=0, batches=0, tokens=0) is None


@pytest.mark.parametrize(
    ("device", "seconds", "expected"), [("cpu", 9.0, F), ("cuda", 9.0, P), (None, 9.0, U)]
)
def test_placeholder_epoch_is_found(device: str | None, seconds: float, expected: Verdict) -> None:
    """An epoch of made-up numbers fails, and is undecided where the device matters."""
    session = _session(facts=RunFacts(device=device))
    session.step(step_of(0))
    made_up = {"train_loss": 1.0, "grad_norm_max": 1.0, "train_ppl": math.e}
    session.close_epoch(epoch_of(0, **made_up, wall_seconds=seconds))
    assert _verdicts(session, _end(1))["EXHAUST"] is expected


def test_abort_of_another_rank_counts() -> None:
    """A violation that another rank tells fails the same gates, once."""
    session = _session()
    told = _session().step(step_of(0, lr=math.inf))
    assert told is not None
    session.abort(told)
    session.abort(told, Location(path="events.jsonl", line=3))
    findings = _result(session, "007", _end(0)).findings
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
    verdicts = _verdicts(_healthy(), _end(3, "ABORTED", reason))
    assert {gate for gate, verdict in verdicts.items() if verdict is F} == gates


def test_abort_reason_counts_only_with_the_status() -> None:
    """A run that ended well was not aborted."""
    assert F not in _verdicts(_healthy(), _end(3, "OK", "DIVERGENCE")).values()


def test_aborted_status_is_not_told_twice() -> None:
    """Where the event is there the status adds nothing."""
    session = _session()
    session.step(step_of(0, lr=math.inf))
    end = _end(0, "ABORTED", "NUMERICAL_INSTABILITY")
    assert len(_result(session, "007", end).findings) == 1


def test_gpu_that_cannot_be_read_leaves_the_throughput_undecided() -> None:
    """Without NVML nobody knows the utilization, but what is out of range fails."""
    session = _session("GATE-TRAIN-008", facts=UNAVAILABLE)
    session.step(step_of(0))
    assert _verdicts(session, _end(0))["008"] is U
    session.step(step_of(1, tokens_per_sec=-1.0))
    assert _verdicts(session, _end(0))["008"] is F


def test_peak_of_the_learning_rate_is_that_of_all_logs() -> None:
    """The largest learning rate of any rank is compared."""
    session = _healthy()
    low, high = StepGates(session.contract), StepGates(session.contract)
    low.step(step_of(0))
    high.step(step_of(0, lr=1.0))
    assert _verdicts(session, _end(3), low)["009"] is P
    assert _verdicts(session, _end(3), low, high)["009"] is F


def test_each_log_is_gated() -> None:
    """A fault in the log of one rank fails the run, and a log that is missing leaves it open."""
    session = _healthy()
    good, bad, gone = (StepGates(session.contract) for _ in range(3))
    good.step(step_of(0))
    bad.step(fields_of(0, gpu_util_pct=101.0))
    gone.missing("train.rank1.jsonl is not there")
    assert _verdicts(session, _end(3), good, bad, gone)["008"] is F
    verdicts = _verdicts(session, _end(3), good, gone)
    assert (verdicts["001"], verdicts["007"], verdicts["008"]) == (U, U, U)


@pytest.mark.parametrize(("limit", "expected"), [(2.0, P), (1.9, F)])
def test_threshold_over_epochs_is_judged(limit: float, expected: Verdict) -> None:
    """A gate of the user's own may look at the metadata of epochs."""
    check = ThresholdCheck(metric="val_loss", stat="last", epochs=(0, 99), max=limit)
    session = _session("GATE-TRAIN-005", check=check)
    _closed(session, 3.0, 2.0)
    assert _verdicts(session, _end(2))[CHECK_ID] is expected


@pytest.mark.parametrize("metric", ["no_such_field", "optimizer_state_sha", "checkpoint_bytes"])
def test_threshold_over_what_epochs_do_not_tell_is_undecided(metric: str) -> None:
    """A metric that is absent, no number or null cannot be judged."""
    check = ThresholdCheck(metric=metric, stat="last", epochs=(0, 99), max=1.0)
    session = _session("GATE-TRAIN-005", check=check)
    _closed(session, 3.0)
    assert _verdicts(session, _end(1))[CHECK_ID] is U


def test_threshold_over_steps_is_judged() -> None:
    """A gate of the user's own may look at steps."""
    check = ThresholdCheck(metric="wall_ms", stat="max", max=10.0)
    session = _session("GATE-TRAIN-005", check=check)
    session.step(step_of(0))
    assert _verdicts(session, _end(0))[CHECK_ID] is F


def test_hyperparameters_and_provenance_are_those_of_the_run() -> None:
    """What the run tells of them is judged."""
    facts = RunFacts(mode="finetune", hyperparameters=FINETUNE, provenance={**REAL, "synthetic": 1})
    session = _session(facts=facts)
    session.step(step_of(0, lr=1e-3))
    verdicts = _verdicts(session, _end(0))
    assert (verdicts["009"], verdicts["010"]) == (F, F)


def _play(session: GateSession, moves: Sequence[StepRecord | float]) -> Violation | None:
    """Give a session steps and, between them, validation losses that close epochs."""
    for move in moves:
        epoch = len(session.val_losses)
        is_step = isinstance(move, StepRecord)
        violation = session.step(move) if is_step else session.val(epoch, move)
        if violation is not None:
            return violation
        if not is_step:
            session.close_epoch(epoch_of(epoch, move))
    return None


@st.composite
def plays(draw: st.DrawFn) -> list[StepRecord | float]:
    """Draw the moves of a run, the last ones at times poisoned."""
    step, moves = 0, []
    for _ in range(draw(st.integers(0, 12))):
        if draw(st.booleans()):
            loss = draw(st.sampled_from([2.0, 3.0, 3.0, 3.0, 1.0, math.nan]))
            gap = draw(st.sampled_from([0, 0, 0, 0, 0, 1]))
            moves.append(step_of(step + gap, train_loss=loss, grad_norm=1.0))
            step += 1
        else:
            moves.append(draw(st.sampled_from([3.0, 2.0, 2.5, 4.0, 5.0, 12.0, math.nan])))
    return moves


@settings(max_examples=200)
@given(plays())
def test_verdicts_afterwards_are_those_of_the_live_run(moves: list[StepRecord | float]) -> None:
    """From the clean steps, the closed epochs and the ABORT event the same verdicts follow."""
    live, afterwards = _session(), _session()
    violation = _play(live, moves)
    log = StepGates(live.contract)
    for move in moves[: None if violation is None else live.steps.records + len(live.val_losses)]:
        if isinstance(move, StepRecord):
            log.step(move)
    _closed(afterwards, *live.val_losses.values())
    if violation is not None:
        told = violation_of(json.loads(json.dumps(abort_facts(violation), allow_nan=False)))
        assert told is not None
        afterwards.abort(told)
    end = _end(len(live.val_losses), "ABORTED" if violation else "OK")
    assert _verdicts(afterwards, end, log) == _verdicts(live, end)


@settings(max_examples=100)
@given(plays(), st.integers(0, 12))
def test_session_goes_on_from_its_state(moves: list[StepRecord | float], cut: int) -> None:
    """A session restored from JSON ends as one that was never interrupted."""
    check = ThresholdCheck(metric="val_loss", stat="median", epochs=(1, 9), max=2.5)
    whole, first, second = (_session(*ALL_IDS, check=check) for _ in range(3))
    for session in (whole, first):
        session.cycle(1, 9)
    if _play(first, moves[:cut]) is None:
        second.load_state_dict(json.loads(json.dumps(first.state_dict(), allow_nan=False)))
        _play(second, moves[cut:])
        _play(whole, moves)
        end = _end(len(whole.val_losses))
        assert second.verdicts(end) == whole.verdicts(end)
        assert second.state_dict() == whole.state_dict()


def test_placeholder_epoch_is_remembered_in_the_state() -> None:
    """A resumed run is still judged by what it did before."""
    session, other = _session(), _session()
    made_up = {"train_loss": 1.0, "grad_norm_max": 1.0, "train_ppl": math.e, "wall_seconds": 0.1}
    session.close_epoch(epoch_of(0, **made_up))
    other.load_state_dict(json.loads(json.dumps(session.state_dict())))
    assert _verdicts(other, _end(1))["EXHAUST"] is F


def test_steps_taken_in_together_are_as_one_by_one() -> None:
    """Also where they are not in sequence, which the log would tell."""
    for steps in ((0, 1, 2), (0, 2, 3)):
        records = [StepRecord(**fields_of(step)) for step in steps]
        together, alone = _session(), _session()
        together.extend(records)
        for record in records:
            alone.step(record)
        assert _verdicts(together, _end(0)) == _verdicts(alone, _end(0))
        assert together.steps.state_dict() == alone.steps.state_dict()
