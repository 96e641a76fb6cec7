"""Tests of comparing the first steps of two runs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import pytest

from lightning_elche.contracts.gates.reproduce import Comparison, compare_steps
from lightning_elche.contracts.records import StepRecord
from lightning_elche.contracts.verdicts import Verdict
from tests.contracts.sample_runs import step_of

P, F, U = Verdict.PASS, Verdict.FAIL, Verdict.INDETERMINATE


def _steps(count: int = 100, **changes: Any) -> list[StepRecord]:
    return [step_of(step, train_loss=1.0 / (step + 2), **changes) for step in range(count)]


def _compare(index: int, **changes: Any) -> Comparison:
    """Compare a run with one that has other values at one step."""
    other = _steps()
    other[index] = dataclasses.replace(other[index], **changes)
    return compare_steps(_steps(), other)


def test_same_run_is_reproduced() -> None:
    """A hundred equal steps pass."""
    comparison = compare_steps(_steps(), _steps())
    assert (comparison.result.verdict, comparison.common) == (P, 100)
    assert comparison.difference is None


def test_clocks_and_extras_do_not_matter() -> None:
    """Times, throughput, utilization, epochs and attempts may differ."""
    other = _steps(wall_ms=1.0, tokens_per_sec=5.0, gpu_util_pct=99.0, epoch=3, attempt=2)
    assert compare_steps(_steps(), other).result.verdict is P


@pytest.mark.parametrize("name", ["train_loss", "grad_norm"])
@pytest.mark.parametrize(("by", "expected"), [(9e-7, P), (-9e-7, P), (1.1e-6, F), (-1.1e-6, F)])
def test_loss_and_norm_may_differ_by_a_millionth(name: str, by: float, expected: Verdict) -> None:
    """A difference below 1e-6 passes, one above does not."""
    value = getattr(_steps()[50], name) + by
    assert _compare(50, **{name: value}).result.verdict is expected


def test_difference_is_measured_in_32_bits() -> None:
    """Two neighbouring 32-bit losses near 10 differ by less than a millionth."""
    a, b = _steps(), _steps()
    a[3], b[3] = step_of(3, train_loss=10.0), step_of(3, train_loss=10.00000095367431640625)
    assert compare_steps(a, b).result.verdict is P


@pytest.mark.parametrize("lr", [1.0000001e-5, 0.99999e-5, 0.0])
def test_learning_rate_must_be_equal(lr: float) -> None:
    """The learning rate has no tolerance but that of 32 bits."""
    assert _compare(0, lr=lr).result.verdict is F
    assert _compare(0, lr=1e-5 * (1 + 1e-12)).result.verdict is P


def test_first_difference_is_told() -> None:
    """The reason names step, field and both values, and the difference where to find them."""
    comparison = _compare(7, grad_norm=0.75)
    assert comparison.result.reason == (
        "at step 7, grad_norm is 0.5 in the first run and 0.75 in the second"
    )
    assert comparison.difference is not None
    assert dataclasses.astuple(comparison.difference) == (7, 7, "grad_norm", 0.5, 0.75)


def test_fields_are_compared_in_the_order_of_the_log() -> None:
    """Of several differences in a step the first field is told."""
    difference = _compare(7, lr=1.0, train_loss=9.0).difference
    assert difference is not None
    assert difference.field == "train_loss"


def test_steps_must_be_the_same() -> None:
    """A run that lacks a step is another one."""
    difference = compare_steps(_steps(), _steps()[1:]).difference
    assert difference is not None
    assert (difference.field, difference.a, difference.b) == ("step", 0.0, 1.0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_value_that_is_no_number_is_not_reproduced(value: float) -> None:
    """NaN and infinity are not the same in two runs."""
    poisoned = [step_of(0, lr=value)]
    assert compare_steps(poisoned, poisoned).result.verdict is F


@pytest.mark.parametrize(("count", "expected"), [(0, U), (99, U), (100, P), (250, P)])
def test_hundred_steps_are_needed(count: int, expected: Verdict) -> None:
    """Fewer than 100 common steps prove nothing, and more are not looked at."""
    assert compare_steps(_steps(count), _steps(250)).result.verdict is expected


def test_difference_counts_with_fewer_steps() -> None:
    """A difference within fewer than 100 steps is one, all the same."""
    other = [*_steps(9), step_of(9, train_loss=7.0)]
    assert compare_steps(_steps(10), other).result.verdict is F


def test_difference_after_a_hundred_steps_does_not_count() -> None:
    """Step 100 is not compared, and with a sampling period nor is any later one."""
    other = _steps(120)
    other[100] = step_of(100, train_loss=9.0)
    assert compare_steps(_steps(120), other).result.verdict is P
    thinned = [step_of(step) for step in range(0, 2000, 10)]
    assert compare_steps(thinned, thinned).common == 10


@pytest.mark.parametrize(
    ("seeds", "expected"), [((1, 2), U), ((1, None), U), ((None, None), F), ((3, 3), F)]
)
def test_runs_with_other_seeds_are_not_judged(
    seeds: tuple[int | None, int | None], expected: Verdict
) -> None:
    """Other seeds lead to other runs; what differs is told anyway."""
    comparison = compare_steps(_steps(), _steps(grad_norm=9.0), seeds=seeds)
    assert comparison.result.verdict is expected
    assert comparison.difference is not None


def test_no_more_steps_are_read_than_needed() -> None:
    """A log of any length is read up to the hundredth step."""

    def endless() -> Iterator[StepRecord]:
        yield from _steps()
        raise AssertionError("too many steps were asked for")

    assert compare_steps(endless(), endless()).result.verdict is P
