"""Tests of judging a step log."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_elche.contracts.gates.stepgates import StepGates
from lightning_elche.contracts.gates.steps import SIX_FIELDS
from lightning_elche.contracts.model import FieldSpec, ThresholdCheck
from lightning_elche.contracts.records import StepRecord
from lightning_elche.contracts.verdicts import GateResult, Location, Verdict
from tests.contracts.sample_runs import (
    CHECK_ID,
    STEP_IDS,
    calm_numbers,
    columns_of,
    contract_of,
    fields_of,
    numbers,
    step_of,
)

METRICS, INSTABILITY, THROUGHPUT, EXHAUST = STEP_IDS
P, F, U = Verdict.PASS, Verdict.FAIL, Verdict.INDETERMINATE
MEAN_WALL = ThresholdCheck(metric="wall_ms", stat="mean", steps=(2, 9), max=25.0)


def _gates(*records: object, **options: Any) -> StepGates:
    gates = StepGates(contract_of(*STEP_IDS, **options))
    for record in records:
        gates.step(record)  # type: ignore[arg-type]
    return gates


def _verdicts(gates: StepGates) -> list[Verdict]:
    return [result.verdict for result in gates.results()]


def _result(gates: StepGates, gate: str) -> GateResult:
    return next(result for result in gates.results() if result.gate == gate)


def test_clean_log_passes() -> None:
    """A log without fault passes all gates, with the number of records as the reason."""
    gates = _gates(*(step_of(step) for step in range(3)))
    assert [(one.verdict, one.reason) for one in gates.results()] == [(P, "3 records")] * 4


def test_clean_log_passes_as_mappings_with_further_keys() -> None:
    """Mappings may have keys that nobody asks for."""
    assert _verdicts(_gates(*(fields_of(step, note="x") for step in range(3)))) == [P] * 4


def test_empty_log_fails_for_lack_of_records_and_proves_nothing() -> None:
    """A log without records fails the gate on records; the others cannot be judged."""
    gates = _gates()
    assert _verdicts(gates) == [F, U, U, U]
    assert _result(gates, METRICS).reason == "train.jsonl has no records"


def test_missing_log_cannot_be_judged() -> None:
    """Without a log all gates are undecided."""
    gates = _gates()
    gates.missing("train.jsonl is not there")
    assert [(one.verdict, one.reason) for one in gates.results()] == [
        (U, "train.jsonl is not there")
    ] * 4


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"lr": ...}, [F, U, P, P]),
        ({"gpu_util_pct": "0"}, [F, P, U, P]),
        ({"train_loss": None}, [F, F, P, U]),
        ({"train_loss": math.nan}, [P, F, P, P]),
        ({"grad_norm": 1e39}, [P, F, P, P]),
        ({"tokens_per_sec": -1.0}, [P, P, F, P]),
        ({"wall_ms": -1.0}, [P, P, F, P]),
        ({"wall_ms": "20"}, [P, P, U, P]),
        ({"wall_ms": None}, [P, P, P, P]),
        ({"wall_ms": ..., "epoch": ...}, [P, P, P, P]),
        ({"train_loss": 1.0, "grad_norm": 1.0}, [P, P, P, F]),
        ({"train_loss": math.nan, "gpu_util_pct": 101.0}, [P, F, F, P]),
        ({"step": ...}, [F, P, P, P]),
        ({"step": 7}, [F, P, P, P]),
    ],
)
def test_fault_fails_the_gates_that_it_breaks(
    changes: dict[str, Any], expected: list[Verdict]
) -> None:
    """Each fault of a record fails its own gates, and what it hides is undecided."""
    gates = _gates(step_of(0), fields_of(1, **changes), step_of(2))
    assert _verdicts(gates) == expected


def test_fault_is_returned_and_located() -> None:
    """The first violation of a record comes back, and findings say where it stood."""
    gates = _gates(step_of(0))
    at = Location(path="train.jsonl", line=2, offset=150)
    violation = gates.step(fields_of(1, grad_norm=math.inf, gpu_util_pct=150), at)
    assert violation is not None
    assert violation.gate == INSTABILITY
    assert [one.at for result in gates.results() for one in result.findings] == [at, at]


def test_fault_without_a_place_is_in_the_log() -> None:
    """A finding of a record without a place names the log."""
    gates = StepGates(contract_of(*STEP_IDS), path="train.rank1.jsonl")
    gates.step(step_of(0, lr=math.nan))
    assert [one.at for one in _result(gates, INSTABILITY).findings] == [
        Location(path="train.rank1.jsonl")
    ]


def test_faults_beyond_twenty_are_counted() -> None:
    """Of many faults the first twenty are kept."""
    gates = _gates(*(step_of(step, lr=math.nan) for step in range(25)))
    result = _result(gates, INSTABILITY)
    assert len(result.findings) == 20
    assert result.reason == "NUMERICAL_INSTABILITY at step 0: lr = nan (and 24 more)"


@pytest.mark.parametrize(
    ("steps", "messages"),
    [
        ([0, 1, 3, 4], ["METRIC_MISSING at step 2: step is absent, the next one is 3"]),
        ([1, 2], ["METRIC_MISSING at step 0: step is absent, the next one is 1"]),
        ([0, 1, 1, 2], ["METRIC_MISSING at step 1: step comes after step 1"]),
    ],
)
def test_steps_out_of_order_fail(steps: list[int], messages: list[str]) -> None:
    """A gap, a late begin and a repetition each are one finding."""
    gates = _gates(*(step_of(step) for step in steps))
    assert [one.message for one in _result(gates, METRICS).findings] == messages


def test_fault_of_the_field_comes_before_that_of_the_order() -> None:
    """Of a record that lacks a field and comes too late the field is told."""
    violation = _gates().step(fields_of(3, lr=...))
    assert violation is not None
    assert violation.message == "METRIC_MISSING at step 3: lr is absent"


@pytest.mark.parametrize(
    ("steps", "expected"),
    [([0, 10, 20], P), (range(25), P), ([0, 20], F), ([0, 10, 21], F), ([10, 20], F)],
)
def test_log_may_be_thinned_to_the_sampling_period(steps: Any, expected: Verdict) -> None:
    """With a sampling period multiples of it must be there, and others may."""
    gates = _gates(*(step_of(step) for step in steps), sampling_period_steps=10)
    assert _verdicts(gates)[0] is expected


def test_log_must_not_be_thinned_without_a_sampling_period() -> None:
    """With a period of 1 every step must be there."""
    assert _verdicts(_gates(step_of(0), step_of(10)))[0] is F


def test_broken_line_fails_the_records_and_leaves_the_rest_undecided() -> None:
    """A line that nobody can read fails as a record, and may hide anything else."""
    gates = _gates(step_of(0))
    gates.broken("line 2 is not JSON", Location(path="train.jsonl", line=2))
    gates.step(step_of(2))
    assert _verdicts(gates) == [F, U, U, U]
    assert [one.message for one in _result(gates, METRICS).findings] == ["line 2 is not JSON"]


def test_broken_line_may_be_an_additional_one() -> None:
    """After a line that nobody can read the step that was due may come, too."""
    gates = _gates(step_of(0))
    gates.broken("line 2 is not JSON", Location(path="train.jsonl", line=2))
    assert gates.step(step_of(1)) is None


@pytest.mark.parametrize("gate", STEP_IDS)
def test_only_declared_gates_are_judged(gate: str) -> None:
    """A contract with one gate gets one verdict, and faults of the others pass by it."""
    gates = StepGates(contract_of(gate))
    broken = fields_of(0, lr=..., grad_norm=math.nan, gpu_util_pct=-1)
    violation = gates.step({**broken, "train_loss": 2.0})
    assert [one.gate for one in gates.results()] == [gate]
    assert violation is None or violation.gate == gate


def test_nothing_is_judged_without_gates() -> None:
    """A contract without gates over steps has no verdicts and no violations."""
    gates = StepGates(contract_of("GATE-TRAIN-003"))
    assert gates.step({}) is None
    assert gates.results() == ()


def test_offered_fault_is_not_taken_in() -> None:
    """A record that breaks a rule is returned and leaves everything as it was."""
    gates = _gates(step_of(0))
    violation = gates.offer(fields_of(1, train_loss=math.nan))
    assert violation is not None
    assert (violation.gate, gates.records) == (INSTABILITY, 1)
    assert _verdicts(gates) == [P] * 4


def test_offered_step_is_taken_in_if_it_is_clean() -> None:
    """A clean record is taken in, be it plain or not."""
    gates = _gates()
    assert gates.offer(step_of(0)) is None
    assert gates.offer(fields_of(1, train_loss=2)) is None
    assert gates.records == 2


def test_contract_without_required_fields_requires_the_six() -> None:
    """Six fields are required where the contract does not say which."""
    assert _verdicts(_gates(fields_of(0, lr=...), required=()))[0] is F


def test_field_that_the_contract_leaves_out_may_be_absent() -> None:
    """A contract may ask for fewer fields, but then their rules cannot be judged."""
    gates = _gates(fields_of(0, lr=...), required=SIX_FIELDS[:2])
    assert _verdicts(gates) == [P, U, P, P]


def test_field_of_the_contract_is_looked_for_in_mappings() -> None:
    """A field beyond those of a record is found in a mapping with all keys."""
    own = (*SIX_FIELDS, FieldSpec(name="loss_scale", type="f32"))
    gates = _gates(fields_of(0, loss_scale=1.0), required=own)
    assert gates.needs_mappings
    assert not gates.columns(columns_of([step_of(1)]))
    assert _verdicts(gates)[0] is P
    assert gates.step(fields_of(1)) is not None


def test_step_is_needed_for_the_order_though_it_is_not_required() -> None:
    """Where records do not tell their step nobody knows whether some are missing."""
    for step in (..., 0.0):
        assert _verdicts(_gates(fields_of(0, step=step), required=SIX_FIELDS[1:]))[0] is U


def test_totals_are_those_of_the_epoch() -> None:
    """Steps add up to the mean loss, the largest norm, the time and the tokens of their epoch."""
    gates = _gates(
        step_of(0, train_loss=2.0, grad_norm=0.25, epoch=0),
        step_of(1, train_loss=4.0, grad_norm=0.75, epoch=0, wall_ms=10.0),
        step_of(2, train_loss=7.0, epoch=1, wall_ms=None),
    )
    first, second = gates.epochs[0], gates.epochs[1]
    assert (first.steps, first.train_loss, first.grad_norm_max) == (2, 3.0, 0.75)
    assert (first.timed_steps, first.wall_ms, first.tokens) == (2, 30.0, 30.0)
    assert (second.train_loss, second.timed_steps, second.tokens) == (7.0, 0, 0.0)


def test_last_hundred_steps_have_a_mean_of_their_own() -> None:
    """Step 101 from the end no longer counts."""
    gates = _gates(step_of(0, train_loss=90.0), *(step_of(step) for step in range(1, 101)))
    assert gates.epochs[0].train_loss_last100 == 2.5


def test_extremes_are_kept() -> None:
    """The peak of the learning rate is kept, and what is negative."""
    gates = _gates(step_of(0, lr=3e-5), step_of(1, lr=-1e-5), step_of(2, grad_norm=-2.0))
    assert (gates.lr_max, gates.lr_min, gates.grad_norm_min) == (3e-5, -1e-5, -2.0)


def test_peak_of_the_learning_rate_is_that_of_sampled_steps() -> None:
    """Steps that a thinned log would not have do not count, so that both tell the same."""
    records = [step_of(0, lr=1e-5), step_of(1, lr=9e-5)]
    assert _gates(*records, sampling_period_steps=10).lr_max == 1e-5
    at_once = _gates(sampling_period_steps=10)
    assert at_once.columns(columns_of(records))
    assert at_once.lr_max == 1e-5


def test_utilization_is_added_up() -> None:
    """Count, extremes and mean of the utilization are known."""
    util = _gates(step_of(0, gpu_util_pct=40.0), step_of(1, gpu_util_pct=60.0)).util
    assert (util.count, util.low, util.high, util.mean) == (2, 40.0, 60.0, 50.0)


def test_threshold_over_steps_is_judged() -> None:
    """A gate of the user's own looks at its window of steps only."""
    slow = [step_of(step, wall_ms=99.0 if step < 2 else 20.0) for step in range(6)]
    assert _result(_gates(*slow, check=MEAN_WALL), CHECK_ID).verdict is P
    slow[5] = step_of(5, wall_ms=60.0)
    assert _result(_gates(*slow, check=MEAN_WALL), CHECK_ID).verdict is F


def test_threshold_is_undecided_with_a_broken_line_in_its_window() -> None:
    """A line that nobody can read may have held a value of the window."""
    gates = _gates(step_of(0), step_of(1), step_of(2), check=MEAN_WALL)
    gates.broken("line 4 is not JSON", Location(path="train.jsonl", line=4))
    assert _result(gates, CHECK_ID).verdict is U


def test_threshold_over_a_key_of_the_log_is_judged() -> None:
    """The metric may be any key of the log, which then has to be read as mappings."""
    check = ThresholdCheck(metric="latency", stat="max", max=5.0)
    gates = _gates(fields_of(0, latency=4), fields_of(1, latency=6), check=check)
    assert gates.needs_mappings
    assert _result(gates, CHECK_ID).verdict is F


def test_many_steps_are_taken_in_at_once() -> None:
    """Columns of clean steps in sequence are taken in."""
    gates = _gates(step_of(0))
    assert gates.columns(columns_of([step_of(step) for step in range(1, 9)]))
    assert gates.records == 9
    assert gates.columns(columns_of([]))


@pytest.mark.parametrize(
    "changes",
    [
        {"train_loss": math.nan},
        {"train_loss": -math.inf},
        {"grad_norm": 1e39},
        {"lr": math.nan},
        {"tokens_per_sec": -1.0},
        {"tokens_per_sec": math.nan},
        {"gpu_util_pct": 100.001},
        {"gpu_util_pct": -0.001},
        {"gpu_util_pct": math.nan},
        {"wall_ms": -1.0},
        {"wall_ms": math.inf},
        {"train_loss": 1.0, "grad_norm": 1.0},
        {"train_loss": None},
        {"gpu_util_pct": "0"},
        {"lr": 10**400},
        {"step": 3},
    ],
)
@pytest.mark.parametrize("index", [0, 2, 4])
def test_many_steps_are_refused_for_one_fault(changes: dict[str, Any], index: int) -> None:
    """One fault anywhere refuses all columns, and nothing has changed."""
    gates = _gates()
    records = [step_of(step) for step in range(5)]
    records[index] = dataclasses.replace(records[index], **{"step": index + 9} | changes)
    before = json.dumps(gates.state_dict())
    assert not gates.columns(columns_of(records)) or index == changes.get("step")
    assert json.dumps(gates.state_dict()) == before


def _totals(gates: StepGates) -> list[float]:
    """Return all numbers that gates tell."""
    util = gates.util
    totals = [gates.records, gates.lr_max, gates.lr_min, gates.grad_norm_min]
    totals += [util.count, util.low, util.high, util.total]
    for number, own in gates.epochs.items():
        totals += [number, own.steps, own.train_loss, own.train_loss_last100]
        totals += [own.grad_norm_max, own.timed_steps, own.wall_ms, own.tokens]
    return totals


@st.composite
def logs(draw: st.DrawFn) -> list[StepRecord]:
    """Draw a log, mostly clean and in sequence, at times neither."""
    floats = draw(st.sampled_from([calm_numbers, calm_numbers | st.sampled_from([0.0, 1.0])]))
    if draw(st.integers(0, 3)) == 0:
        floats = numbers
    has_wall, has_epoch = draw(st.booleans()), draw(st.booleans())
    stride = draw(st.sampled_from([1, 1, 1, 5]))
    shift = draw(st.sampled_from([0, 0, 0, 1, 5]))
    return [
        StepRecord(
            step=index * stride + shift,
            train_loss=draw(floats),
            grad_norm=draw(floats),
            lr=draw(floats),
            tokens_per_sec=draw(floats),
            gpu_util_pct=draw(floats),
            wall_ms=draw(floats) if has_wall else None,
            epoch=index // draw(st.integers(1, 6)) if has_epoch else None,
        )
        for index in range(draw(st.integers(1, 14)))
    ]


@settings(max_examples=200)
@given(logs(), st.sampled_from([1, 5]), st.integers(1, 14))
def test_many_steps_at_once_are_the_same_as_one_by_one(
    records: list[StepRecord], period: int, size: int
) -> None:
    """Columns, where they are taken in, come to the results of steps one by one."""
    options: dict[str, Any] = {"sampling_period_steps": period, "check": MEAN_WALL}
    one_by_one, at_once = _gates(*records, **options), _gates(**options)
    for start in range(0, len(records), size):
        block = records[start : start + size]
        if not at_once.columns(columns_of(block)):
            for record in block:
                at_once.step(record)
    assert at_once.results() == one_by_one.results()
    assert _totals(at_once) == pytest.approx(_totals(one_by_one), rel=1e-9, nan_ok=True)


@settings(max_examples=100)
@given(logs())
def test_calm_steps_are_always_taken_in_at_once(records: list[StepRecord]) -> None:
    """Columns are refused only if one by one a step has a fault, or is of a rare kind."""
    gates, one_by_one = _gates(), _gates()
    is_clean = all(one_by_one.step(record) is None for record in records)
    values = [value for one in records for value in dataclasses.astuple(one) if value is not None]
    is_rare = any(value > 1e37 or math.copysign(1.0, value) < 0.0 for value in values)
    assert gates.columns(columns_of(records)) == is_clean or is_rare


@settings(max_examples=100)
@given(logs(), st.integers(0, 14), st.sampled_from([1, 5]))
def test_gates_go_on_from_their_state(records: list[StepRecord], cut: int, period: int) -> None:
    """Gates restored from JSON come to the same results, as far as steps were clean before."""
    options: dict[str, Any] = {"sampling_period_steps": period, "check": MEAN_WALL}
    whole, first, second = _gates(**options), _gates(**options), _gates(**options)
    clean = [record for record in records if whole.offer(record) is None]
    for record in clean[:cut]:
        first.offer(record)
    second.load_state_dict(json.loads(json.dumps(first.state_dict(), allow_nan=False)))
    for record in clean[cut:]:
        second.offer(record)
    assert second.results() == whole.results()
    assert second.lr_max == whole.lr_max
