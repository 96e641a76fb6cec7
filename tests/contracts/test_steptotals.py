"""Tests of what steps add up to."""

from __future__ import annotations

import json
import math

from lightning_elche.contracts.gates.logtotals import LogTotals
from lightning_elche.contracts.gates.totals import EpochTotals, UtilTotals
from tests.contracts.sample_runs import step_of


def test_nothing_adds_up_to_nothing() -> None:
    """Without steps means are 0 and extremes infinite."""
    epoch, util = EpochTotals(), UtilTotals()
    assert (epoch.train_loss, epoch.train_loss_last100, epoch.grad_norm_max) == (0, 0, -math.inf)
    assert (util.mean, util.low, util.high) == (0.0, math.inf, -math.inf)


def test_mean_keeps_small_losses_beside_large_ones() -> None:
    """The mean of an epoch is exact, whatever the order of its losses."""
    epoch = EpochTotals()
    for loss in (1.0, 1e20, 1.0, -1e20):
        epoch.add([loss], 0.0)
    assert epoch.train_loss == 0.5


def test_last_hundred_are_kept_over_blocks() -> None:
    """The last hundred losses may come from several blocks."""
    epoch = EpochTotals()
    epoch.add([9.0] * 300, 0.0)
    epoch.add([1.0] * 60, 0.0)
    assert epoch.train_loss_last100 == (60 * 1.0 + 40 * 9.0) / 100


def test_losses_without_bounds_have_no_mean() -> None:
    """Infinities of both signs, and sums beyond the range, are no error."""
    both, large = EpochTotals(), EpochTotals()
    both.add([math.inf, -math.inf], 0.0)
    large.add([1e308] * 10, 0.0)
    assert math.isnan(both.train_loss_last100)
    assert large.train_loss_last100 == math.inf


def test_epochs_go_on_from_their_state() -> None:
    """Only the last epoch is in the state, and it is whole."""
    totals, other = LogTotals(), LogTotals()
    totals.add(step_of(0, epoch=0))
    totals.add(step_of(1, epoch=1, train_loss=7.0, lr=-1.0))
    other.load_state_dict(json.loads(json.dumps(totals.state_dict(), allow_nan=False)))
    assert [*other.epochs] == [1]
    assert other.epochs[1].state_dict() == totals.epochs[1].state_dict()
    assert (other.records, other.lr_min, other.util) == (2, -1.0, totals.util)


def test_record_without_numbers_is_counted() -> None:
    """A record that is not all numbers counts, and adds nothing else."""
    totals = LogTotals()
    totals.add_any(None)
    assert (totals.records, totals.util.count, totals.epochs) == (1, 0, {})
