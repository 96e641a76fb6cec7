"""Tests of judging a step log."""

from __future__ import annotations

import math
from typing import Any

import pytest

from lightning_elche.contracts.gates.stepgates import StepGates
from lightning_elche.contracts.gates.steps import SIX_FIELDS
from lightning_elche.contracts.model import FieldSpec
from lightning_elche.contracts.verdicts import Location, Verdict
from tests.contracts.gated_steps import (
    INSTABILITY,
    METRICS,
    F,
    P,
    U,
    gates_of,
    result_of,
    verdicts_of,
)
from tests.contracts.sample_runs import STEP_IDS, columns_of, contract_of, fields_of, step_of


def test_clean_log_passes() -> None:
    """A log without fault passes all gates, with the number of records as the reason."""
    gates = gates_of(*(step_of(step) for step in range(3)))
    assert [(one.verdict, one.reason) for one in gates.results()] == [(P, "3 records")] * 4


def test_clean_log_passes_as_mappings_with_further_keys() -> None:
    """Mappings may have keys that nobody asks for."""
    assert verdicts_of(gates_of(*(fields_of(step, note="x") for step in range(3)))) == [P] * 4


def test_empty_log_fails_for_lack_of_records_and_proves_nothing() -> None:
    """A log without records fails the gate on records; the others cannot be judged."""
    gates = gates_of()
    assert verdicts_of(gates) == [F, U, U, U]
    assert result_of(gates, METRICS).reason == "train.jsonl has no records"


def test_missing_log_cannot_be_judged() -> None:
    """Without a log all gates are undecided."""
    gates = gates_of()
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
    gates = gates_of(step_of(0), fields_of(1, **changes), step_of(2))
    assert verdicts_of(gates) == expected


def test_fault_is_returned_and_located() -> None:
    """The first violation of a record comes back, and findings say where it stood."""
    gates = gates_of(step_of(0))
    at = Location(path="train.jsonl", line=2, offset=150)
    violation = gates.step(fields_of(1, grad_norm=math.inf, gpu_util_pct=150), at)
    assert violation is not None
    assert violation.gate == INSTABILITY
    assert [one.at for result in gates.results() for one in result.findings] == [at, at]


def test_fault_without_a_place_is_in_the_log() -> None:
    """A finding of a record without a place names the log."""
    gates = StepGates(contract_of(*STEP_IDS), path="train.rank1.jsonl")
    gates.step(step_of(0, lr=math.nan))
    assert [one.at for one in result_of(gates, INSTABILITY).findings] == [
        Location(path="train.rank1.jsonl")
    ]


def test_faults_beyond_twenty_are_counted() -> None:
    """Of many faults the first twenty are kept."""
    gates = gates_of(*(step_of(step, lr=math.nan) for step in range(25)))
    result = result_of(gates, INSTABILITY)
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
    gates = gates_of(*(step_of(step) for step in steps))
    assert [one.message for one in result_of(gates, METRICS).findings] == messages


def test_fault_of_the_field_comes_before_that_of_the_order() -> None:
    """Of a record that lacks a field and comes too late the field is told."""
    violation = gates_of().step(fields_of(3, lr=...))
    assert violation is not None
    assert violation.message == "METRIC_MISSING at step 3: lr is absent"


@pytest.mark.parametrize(
    ("steps", "expected"),
    [([0, 10, 20], P), (range(25), P), ([0, 20], F), ([0, 10, 21], F), ([10, 20], F)],
)
def test_log_may_be_thinned_to_the_sampling_period(steps: Any, expected: Verdict) -> None:
    """With a sampling period multiples of it must be there, and others may."""
    gates = gates_of(*(step_of(step) for step in steps), sampling_period_steps=10)
    assert verdicts_of(gates)[0] is expected


def test_log_must_not_be_thinned_without_a_sampling_period() -> None:
    """With a period of 1 every step must be there."""
    assert verdicts_of(gates_of(step_of(0), step_of(10)))[0] is F


def test_broken_line_fails_the_records_and_leaves_the_rest_undecided() -> None:
    """A line that nobody can read fails as a record, and may hide anything else."""
    gates = gates_of(step_of(0))
    gates.broken("line 2 is not JSON", Location(path="train.jsonl", line=2))
    gates.step(step_of(2))
    assert verdicts_of(gates) == [F, U, U, U]
    assert [one.message for one in result_of(gates, METRICS).findings] == ["line 2 is not JSON"]


def test_broken_line_may_be_an_additional_one() -> None:
    """After a line that nobody can read the step that was due may come, too."""
    gates = gates_of(step_of(0))
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
    gates = gates_of(step_of(0))
    violation = gates.offer(fields_of(1, train_loss=math.nan))
    assert violation is not None
    assert (violation.gate, gates.records) == (INSTABILITY, 1)
    assert verdicts_of(gates) == [P] * 4


def test_offered_step_is_taken_in_if_it_is_clean() -> None:
    """A clean record is taken in, be it plain or not."""
    gates = gates_of()
    assert gates.offer(step_of(0)) is None
    assert gates.offer(fields_of(1, train_loss=2)) is None
    assert gates.records == 2


def test_contract_without_required_fields_requires_the_six() -> None:
    """Six fields are required where the contract does not say which."""
    assert verdicts_of(gates_of(fields_of(0, lr=...), required=()))[0] is F


def test_field_that_the_contract_leaves_out_may_be_absent() -> None:
    """A contract may ask for fewer fields, but then their rules cannot be judged."""
    gates = gates_of(fields_of(0, lr=...), required=SIX_FIELDS[:2])
    assert verdicts_of(gates) == [P, U, P, P]


def test_field_of_the_contract_is_looked_for_in_mappings() -> None:
    """A field beyond those of a record is found in a mapping with all keys."""
    own = (*SIX_FIELDS, FieldSpec(name="loss_scale", type="f32"))
    gates = gates_of(fields_of(0, loss_scale=1.0), required=own)
    assert gates.needs_mappings
    assert not gates.columns(columns_of([step_of(1)]))
    assert verdicts_of(gates)[0] is P
    assert gates.step(fields_of(1)) is not None


def test_step_is_needed_for_the_order_though_it_is_not_required() -> None:
    """Where records do not tell their step nobody knows whether some are missing."""
    for step in (..., 0.0):
        assert verdicts_of(gates_of(fields_of(0, step=step), required=SIX_FIELDS[1:]))[0] is U
