"""Tests of what a step log adds up to, and of thresholds over it."""

from __future__ import annotations

from lightning_elche.contracts.model import ThresholdCheck
from lightning_elche.contracts.verdicts import Location
from tests.contracts.gated_steps import MEAN_WALL, F, P, U, gates_of, result_of
from tests.contracts.sample_runs import CHECK_ID, columns_of, fields_of, step_of


def test_totals_are_those_of_the_epoch() -> None:
    """Steps add up to the mean loss, the largest norm, the time and the tokens of their epoch."""
    gates = gates_of(
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
    gates = gates_of(step_of(0, train_loss=90.0), *(step_of(step) for step in range(1, 101)))
    assert gates.epochs[0].train_loss_last100 == 2.5


def test_extremes_are_kept() -> None:
    """The peak of the learning rate is kept, and what is negative."""
    gates = gates_of(step_of(0, lr=3e-5), step_of(1, lr=-1e-5), step_of(2, grad_norm=-2.0))
    assert (gates.lr_max, gates.lr_min, gates.grad_norm_min) == (3e-5, -1e-5, -2.0)


def test_peak_of_the_learning_rate_is_that_of_sampled_steps() -> None:
    """Steps that a thinned log would not have do not count, so that both tell the same."""
    records = [step_of(0, lr=1e-5), step_of(1, lr=9e-5)]
    assert gates_of(*records, sampling_period_steps=10).lr_max == 1e-5
    at_once = gates_of(sampling_period_steps=10)
    assert at_once.columns(columns_of(records))
    assert at_once.lr_max == 1e-5


def test_utilization_is_added_up() -> None:
    """Count, extremes and mean of the utilization are known."""
    util = gates_of(step_of(0, gpu_util_pct=40.0), step_of(1, gpu_util_pct=60.0)).util
    assert (util.count, util.low, util.high, util.mean) == (2, 40.0, 60.0, 50.0)


def test_threshold_over_steps_is_judged() -> None:
    """A gate of the user's own looks at its window of steps only."""
    slow = [step_of(step, wall_ms=99.0 if step < 2 else 20.0) for step in range(6)]
    assert result_of(gates_of(*slow, check=MEAN_WALL), CHECK_ID).verdict is P
    slow[5] = step_of(5, wall_ms=60.0)
    assert result_of(gates_of(*slow, check=MEAN_WALL), CHECK_ID).verdict is F


def test_threshold_is_undecided_with_a_broken_line_in_its_window() -> None:
    """A line that nobody can read may have held a value of the window."""
    gates = gates_of(step_of(0), step_of(1), step_of(2), check=MEAN_WALL)
    gates.broken("line 4 is not JSON", Location(path="train.jsonl", line=4))
    assert result_of(gates, CHECK_ID).verdict is U


def test_threshold_over_a_key_of_the_log_is_judged() -> None:
    """The metric may be any key of the log, which then has to be read as mappings."""
    check = ThresholdCheck(metric="latency", stat="max", max=5.0)
    gates = gates_of(fields_of(0, latency=4), fields_of(1, latency=6), check=check)
    assert gates.needs_mappings
    assert result_of(gates, CHECK_ID).verdict is F
