"""Tests of taking in many steps at once, and of going on from a state."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_elche.contracts.gates.stepgates import StepGates
from lightning_elche.contracts.records import StepRecord
from tests.contracts.gated_steps import MEAN_WALL, gates_of
from tests.contracts.sample_runs import calm_numbers, columns_of, numbers, step_of


def test_many_steps_are_taken_in_at_once() -> None:
    """Columns of clean steps in sequence are taken in."""
    gates = gates_of(step_of(0))
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
    gates = gates_of()
    records = [step_of(step) for step in range(5)]
    records[index] = dataclasses.replace(records[index], **{"step": index + 9} | changes)
    before = json.dumps(gates.state_dict())
    assert not gates.columns(columns_of(records)) or index == changes.get("step")
    assert json.dumps(gates.state_dict()) == before


def totals_of(gates: StepGates) -> list[float]:
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
    one_by_one, at_once = gates_of(*records, **options), gates_of(**options)
    for start in range(0, len(records), size):
        block = records[start : start + size]
        if not at_once.columns(columns_of(block)):
            for record in block:
                at_once.step(record)
    assert at_once.results() == one_by_one.results()
    assert totals_of(at_once) == pytest.approx(totals_of(one_by_one), rel=1e-9, nan_ok=True)


@settings(max_examples=100)
@given(logs())
def test_calm_steps_are_always_taken_in_at_once(records: list[StepRecord]) -> None:
    """Columns are refused only if one by one a step has a fault, or is of a rare kind."""
    gates, one_by_one = gates_of(), gates_of()
    is_clean = all(one_by_one.step(record) is None for record in records)
    values = [value for one in records for value in dataclasses.astuple(one) if value is not None]
    is_rare = any(value > 1e37 or math.copysign(1.0, value) < 0.0 for value in values)
    assert gates.columns(columns_of(records)) == is_clean or is_rare


@settings(max_examples=100)
@given(logs(), st.integers(0, 14), st.sampled_from([1, 5]))
def test_gates_go_on_from_their_state(records: list[StepRecord], cut: int, period: int) -> None:
    """Gates restored from JSON come to the same results, as far as steps were clean before."""
    options: dict[str, Any] = {"sampling_period_steps": period, "check": MEAN_WALL}
    whole, first, second = gates_of(**options), gates_of(**options), gates_of(**options)
    clean = [record for record in records if whole.offer(record) is None]
    for record in clean[:cut]:
        first.offer(record)
    second.load_state_dict(json.loads(json.dumps(first.state_dict(), allow_nan=False)))
    for record in clean[cut:]:
        second.offer(record)
    assert second.results() == whole.results()
    assert second.lr_max == whole.lr_max
