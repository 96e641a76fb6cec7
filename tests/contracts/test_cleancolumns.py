"""Tests of finding clean steps by the column."""

from __future__ import annotations

import dataclasses
import math

import pytest

from lightning_elche.contracts.gates.columns import ColumnTotals, totals_if_clean
from tests.contracts.sample_runs import columns_of, step_of

TOP_BYTE_IS_ONES = 2.0**127


def test_totals_are_those_of_the_columns() -> None:
    """Extremes and the sum come with the verdict; smallest values only if they are negative."""
    records = [
        step_of(0, grad_norm=0.5, lr=1e-5, gpu_util_pct=40.0),
        step_of(1, grad_norm=2.0, lr=-3e-5, gpu_util_pct=50.0),
    ]
    assert totals_if_clean(columns_of(records)) == ColumnTotals(
        grad_norm_min=0.0,
        grad_norm_max=2.0,
        lr_min=-3e-5,
        lr_max=1e-5,
        util_min=40.0,
        util_max=50.0,
        util_sum=90.0,
    )


@pytest.mark.parametrize("has_wall_ms", [True, False])
def test_columns_are_clean_with_and_without_times(has_wall_ms: bool) -> None:
    """A log may have `wall_ms` or not."""
    columns = columns_of([step_of(0, wall_ms=0.0 if has_wall_ms else None)])
    assert (columns.wall_ms is not None) == has_wall_ms
    assert totals_if_clean(columns) is not None


@pytest.mark.parametrize("name", ["train_loss", "grad_norm", "lr", "tokens_per_sec", "wall_ms"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e39, -1e39, 10**400, "1"])
def test_columns_are_not_clean_with_a_number_beyond_32_bits(name: str, value: float) -> None:
    """What 32 bits cannot hold is found in every column, whatever stands beside it."""
    records = [step_of(0), step_of(1, **{name: value}), step_of(2)]
    assert totals_if_clean(columns_of(records)) is None


@pytest.mark.parametrize("name", ["train_loss", "grad_norm", "lr", "tokens_per_sec", "wall_ms"])
def test_columns_are_clean_up_to_numbers_that_are_hard_to_tell(name: str) -> None:
    """Below 2**127 all numbers are clean; above, they are left to a closer look."""
    below = math.nextafter(TOP_BYTE_IS_ONES, 0.0) - 1e31
    assert totals_if_clean(columns_of([step_of(0, **{name: below})])) is not None
    assert totals_if_clean(columns_of([step_of(0, **{name: TOP_BYTE_IS_ONES})])) is None


@pytest.mark.parametrize("name", ["train_loss", "grad_norm", "lr"])
def test_columns_are_clean_with_negative_numbers(name: str) -> None:
    """Losses, norms and learning rates may be negative, as far as these rules go."""
    assert totals_if_clean(columns_of([step_of(0, **{name: -0.5})])) is not None


@pytest.mark.parametrize("name", ["tokens_per_sec", "gpu_util_pct", "wall_ms"])
def test_columns_are_not_clean_with_a_negative_clock(name: str) -> None:
    """Throughput, utilization and time are not negative."""
    assert totals_if_clean(columns_of([step_of(0), step_of(1, **{name: -0.5})])) is None


@pytest.mark.parametrize("values", [[math.nan, 5.0], [5.0, math.nan], [math.nan], [5.0, 101.0]])
def test_columns_are_not_clean_with_a_utilization_out_of_range(values: list[float]) -> None:
    """A NaN is found first and last, where extremes do not show it."""
    records = [step_of(step, gpu_util_pct=value) for step, value in enumerate(values)]
    assert totals_if_clean(columns_of(records)) is None


def test_columns_are_clean_with_ones_at_different_steps() -> None:
    """A loss of 1 and a gradient norm of 1 are a placeholder only in the same step."""
    columns = columns_of([step_of(0, train_loss=1.0), step_of(1, grad_norm=1.0)])
    assert totals_if_clean(columns) is not None
    at_once = dataclasses.replace(columns, grad_norm=[1.0, 1.0])
    assert totals_if_clean(at_once) is None


@pytest.mark.parametrize("one", [1.0 - 2.0**-25, 1.0, 1.0 + 2.0**-24])
def test_columns_are_not_clean_with_what_rounds_to_one(one: float) -> None:
    """A placeholder is found in all that 32 bits take for 1."""
    assert totals_if_clean(columns_of([step_of(0, train_loss=one, grad_norm=one)])) is None
