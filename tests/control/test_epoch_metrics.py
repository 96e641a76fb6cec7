"""What an epoch amounted to."""

from __future__ import annotations

import math

import pytest

from lightning_elche.control.epoch_metrics import EpochTotals
from lightning_elche.control.reports import Report

FIRST = (
    Report(batches=40, samples=160, compute_ms=400.0, loss_sum=40.0, loss_count=40),
    Report(batches=10, samples=40, compute_ms=390.0, loss_sum=20.0, loss_count=10),
)
SECOND = (
    Report(batches=20, samples=80, compute_ms=200.0, wait_ms=5.0, transfer_ms=3.0),
    Report(batches=5, samples=18, compute_ms=195.0, wait_ms=9.0, transfer_ms=2.0),
)


def totals_of(*events: tuple[Report, ...]) -> EpochTotals:
    """Return the totals of these events."""
    totals = EpochTotals(2)
    for reports in events:
        totals.add(reports)
    return totals


def test_counts_are_summed_over_windows() -> None:
    """Batches, samples and times of a rank are sums over its windows."""
    metrics = totals_of(FIRST, SECOND).metrics(7)
    assert (metrics.epoch, metrics.events) == (7, 2)
    assert (metrics.batches, metrics.samples) == ((60, 15), (240, 58))
    assert metrics.compute_ms == (600.0, 585.0)


def test_batches_are_those_of_all_ranks() -> None:
    """The running count covers every rank."""
    assert totals_of(FIRST, SECOND).batches == 75


def test_loss_is_weighted_by_batches() -> None:
    """40 batches at 1.0 and 10 at 2.0 have a mean of 1.2."""
    assert totals_of(FIRST).metrics(0).loss == 1.2


def test_loss_is_nan_without_a_loss() -> None:
    """No batch with a loss has no mean."""
    assert math.isnan(totals_of(SECOND).metrics(0).loss)


def test_costs_of_the_first_event_belong_to_the_epoch_before() -> None:
    """The first reports of an epoch carry costs that were already counted."""
    assert totals_of(SECOND).metrics(0).wait_ms == (0.0, 0.0)
    assert totals_of(SECOND).metrics(0).transfer_ms == (0.0, 0.0)


def test_costs_of_later_events_are_summed() -> None:
    """From the second event on, reports carry costs of this epoch."""
    metrics = totals_of(FIRST, SECOND, SECOND).metrics(0)
    assert (metrics.wait_ms, metrics.transfer_ms) == ((10.0, 18.0), (6.0, 4.0))


def test_costs_of_the_closing_event_are_added_at_the_end() -> None:
    """What the last event cost is known only after it."""
    totals = totals_of(FIRST, SECOND)
    totals.add_costs([(1.0, 4.0), (2.0, 8.0)])
    metrics = totals.metrics(0)
    assert (metrics.wait_ms, metrics.transfer_ms) == ((6.0, 11.0), (7.0, 10.0))


def test_epoch_time_is_that_of_the_busiest_rank() -> None:
    """An epoch lasts as long as the longest sum of compute, wait and transfer."""
    metrics = totals_of(FIRST, SECOND).metrics(0)
    assert metrics.epoch_ms == 608.0


def test_throughput_is_samples_over_the_epoch_time() -> None:
    """200 samples in 400 ms are 500 in a second."""
    assert totals_of(FIRST).metrics(0).samples_per_s == 500.0


def test_share_is_the_part_of_the_samples() -> None:
    """Shares follow samples, not batches."""
    assert totals_of(FIRST).metrics(0).share == (0.8, 0.2)


def test_metrics_of_an_empty_epoch_are_zero() -> None:
    """Nothing trained divides by nothing, and vectors keep the length of the world."""
    metrics = EpochTotals(2).metrics(0)
    assert (metrics.samples_per_s, metrics.share, metrics.batches) == (0.0, (0.0, 0.0), (0, 0))


def test_reset_starts_a_new_epoch() -> None:
    """After a reset nothing of the last epoch is left."""
    totals = totals_of(FIRST, SECOND)
    totals.reset()
    assert (totals.batches, totals.metrics(1).events) == (0, 0)


def test_reports_are_refused_for_another_number_of_ranks() -> None:
    """A missing report is an error, not a silent zero."""
    with pytest.raises(ValueError, match="shorter"):
        EpochTotals(3).add(FIRST)


STREAMING = (
    Report(
        batches=10,
        ahead_batches=4,
        samples=38,
        ahead_samples=16,
        compute_ms=100.0,
        wait_ms=7.0,
        loss_sum=20.0,
        loss_count=10,
    ),
    Report(batches=1, samples=4, compute_ms=100.0, loss_sum=1.0, loss_count=1),
)


def test_batches_of_the_next_epoch_are_left_out() -> None:
    """Counts, time and loss are those of this epoch's batches."""
    metrics = totals_of(FIRST, STREAMING).metrics(0)
    assert (metrics.batches, metrics.samples) == ((46, 11), (182, 44))
    assert metrics.compute_ms == (460.0, 490.0)
    assert metrics.loss == pytest.approx((40.0 + 20.0 + 12.0 + 1.0) / (40 + 10 + 6 + 1))


def test_next_epoch_starts_with_what_was_trained_ahead() -> None:
    """Nothing is lost between two epochs, and waiting stays where it was."""
    totals = totals_of(FIRST, STREAMING)
    totals.reset()
    metrics = totals.metrics(1)
    assert (totals.batches, metrics.events) == (4, 0)
    assert (metrics.samples, metrics.compute_ms) == ((16, 0), (40.0, 0.0))
    assert (metrics.loss, metrics.wait_ms) == (2.0, (0.0, 0.0))


def test_batches_ahead_need_no_loss() -> None:
    """Where no batch returned a loss, none is split."""
    totals = totals_of((Report(batches=2, ahead_batches=1), Report()))
    totals.reset()
    assert (totals.batches, math.isnan(totals.metrics(1).loss)) == (1, True)


def test_batch_that_was_dealt_twice_counts_once() -> None:
    """Its first rank has skipped it."""
    skipped, redealt = Report(batches=3, skipped=1), Report(batches=4, redealt=1)
    assert totals_of((skipped, redealt)).batches == 6
