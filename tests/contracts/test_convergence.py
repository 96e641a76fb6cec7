"""Tests of when a run has converged, and when it is given up."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.contracts.gates.convergence import (
    Progress,
    RunEnd,
    epoch_gaps,
    judge_patience,
    judge_target,
)
from lightning_elche.contracts.model import Convergence
from lightning_elche.contracts.verdicts import Verdict

P, F, U = Verdict.PASS, Verdict.FAIL, Verdict.INDETERMINATE
RULES = Convergence(patience_epochs=2, min_epochs_before_early_stop=3)


def _by_epoch(*val_losses: float) -> dict[int, float]:
    return dict(enumerate(val_losses))


def _end(epochs: int, status: str | None = "OK") -> RunEnd:
    return RunEnd(status=status, stop_reason=None, epochs_completed=epochs)


def _stop(rules: Convergence, *val_losses: float) -> int | None:
    """Return the first epoch after which patience is lost."""
    progress = Progress()
    for epoch, val_loss in enumerate(val_losses):
        progress = progress.after(epoch, val_loss)
        if progress.is_out_of_patience(epoch, rules):
            return epoch
    return None


def _patience(*val_losses: float, status: str = "OK", rules: Convergence = RULES) -> Verdict:
    return judge_patience(_by_epoch(*val_losses), rules, _end(len(val_losses), status)).verdict


def _target(*val_losses: float, target: float | None = 2.2, **end: object) -> Verdict:
    told = _end(**{"epochs": len(val_losses), **end})  # type: ignore[arg-type]
    return judge_target(_by_epoch(*val_losses), target, told).verdict


def test_progress_begins_without_a_best() -> None:
    """Before the first epoch there is no best, and none was missed."""
    assert Progress() == Progress(best=math.inf, best_epoch=None, misses=0)


def test_best_is_strictly_smaller() -> None:
    """An equal loss is a miss, a smaller one a new best that ends the misses."""
    progress = Progress().after(0, 2.0).after(1, 2.0)
    assert progress == Progress(best=2.0, best_epoch=0, misses=1)
    assert progress.after(2, 1.5) == Progress(best=1.5, best_epoch=2, misses=0)


def test_best_is_compared_in_32_bits() -> None:
    """A loss that is smaller only in 64 bits is no new best."""
    assert Progress().after(0, 0.1).after(1, math.nextafter(0.1, 0.0)).misses == 1


def test_improvement_is_against_the_best_not_the_epoch_before() -> None:
    """Losses that fall after a rise are misses until they are below the best."""
    assert Progress().after(0, 2.0).after(1, 4.0).after(2, 3.0).misses == 2


def test_loss_that_is_no_number_is_a_miss() -> None:
    """NaN is no best, neither as the first nor later."""
    assert Progress().after(0, math.nan) == Progress(misses=1)


@pytest.mark.parametrize(("patience", "stop"), [(0, 2), (1, 2), (2, 3), (3, 4)])
def test_patience_is_lost_with_the_miss_beyond_it(patience: int, stop: int) -> None:
    """Patience 2 bears two misses and is lost with the third; 0 is lost with the first.

    Lightning's `EarlyStopping` would stop at the second. No stop comes before three epochs.
    """
    rules = Convergence(patience_epochs=patience, min_epochs_before_early_stop=3)
    assert _stop(rules, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0) == stop


@pytest.mark.parametrize(("min_epochs", "stop"), [(0, 1), (2, 1), (3, 2), (5, 4)])
def test_patience_is_not_lost_before_the_minimum_of_epochs(min_epochs: int, stop: int) -> None:
    """Misses count below the minimum, and the stop comes with the last epoch of it."""
    rules = Convergence(patience_epochs=0, min_epochs_before_early_stop=min_epochs)
    assert _stop(rules, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0) == stop


def test_patience_is_never_lost_if_the_contract_says_so() -> None:
    """With early stopping off misses are counted, and no stop is expected."""
    rules = Convergence(early_stop_on_patience_exhausted=False, patience_epochs=0)
    assert _stop(rules, 1.0, *[2.0] * 20) is None
    assert _patience(1.0, *[2.0] * 20, rules=rules) is P
    assert _patience(1.0, *[2.0] * 20, rules=rules, status="EARLY_STOP") is F


def test_run_that_stops_where_patience_is_lost_passes() -> None:
    """Best at epoch 0 and three misses: the run ends with epoch 3."""
    assert _patience(1.0, 2.0, 2.0, 2.0, status="EARLY_STOP") is P


def test_run_that_goes_on_after_patience_is_lost_fails() -> None:
    """One more epoch than patience bears is one too many, whatever it is called."""
    assert _patience(1.0, 2.0, 2.0, 2.0, 0.5, status="OK") is F
    assert _patience(1.0, 2.0, 2.0, 2.0, 2.0, status="EARLY_STOP") is F


def test_run_that_stops_before_patience_is_lost_fails() -> None:
    """An early stop with patience left is none of ours."""
    assert _patience(1.0, 2.0, 2.0, status="EARLY_STOP") is F


@pytest.mark.parametrize("status", ["OK", "ABORTED", "INTERRUPTED", "RUNNING"])
def test_run_that_ends_sooner_for_another_reason_passes(status: str) -> None:
    """A run may end before its patience does, and with the epoch in which it is lost."""
    assert _patience(1.0, 2.0, 2.0, status=status) is P
    assert _patience(1.0, 2.0, 2.0, 2.0, status=status) is P


@given(st.lists(st.floats(0.0, 9.0), min_size=1, max_size=12), st.integers(0, 3), st.integers(0, 5))
def test_run_that_follows_the_rules_passes(
    val_losses: list[float], patience: int, min_epochs: int
) -> None:
    """A run that stops where the replay does passes, and one epoch later it fails."""
    rules = Convergence(patience_epochs=patience, min_epochs_before_early_stop=min_epochs)
    stop = _stop(rules, *val_losses)
    if stop is None:
        assert _patience(*val_losses, rules=rules) is P
        assert _patience(*val_losses, rules=rules, status="EARLY_STOP") is F
    else:
        until = val_losses[: stop + 1]
        assert _patience(*until, rules=rules, status="EARLY_STOP") is P
        assert _patience(*until, 0.0, rules=rules, status="EARLY_STOP") is F


@pytest.mark.parametrize(
    ("val_losses", "completed", "gap"),
    [
        ({}, 0, "no epoch was completed"),
        ({}, 2, "epoch 0 has no validation loss on record"),
        ({0: 1.0, 2: 1.0}, 3, "epoch 1 has no validation loss on record"),
        ({1: 1.0, 2: 1.0}, 2, "epoch 0 has no validation loss on record"),
        ({0: 1.0}, 10**15, "epoch 1 has no validation loss on record"),
        ({-1: 1.0}, 0, "epoch -1 cannot be"),
        ({0: 1.0, 1: 1.0}, 2, None),
        ({0: 1.0, 1: 1.0}, 1, None),
    ],
)
def test_gap_is_told(val_losses: dict[int, float], completed: int, gap: str | None) -> None:
    """Epochs are 0 to the last one, and as many as the run says; epochs from 1 on have a gap."""
    assert epoch_gaps(val_losses, _end(completed)) == gap


@pytest.mark.parametrize("val_losses", [{}, {0: 1.0, 2: 9.0}])
def test_patience_is_not_judged_with_a_gap(val_losses: dict[int, float]) -> None:
    """Without all epochs nobody knows where patience was lost."""
    assert judge_patience(val_losses, RULES, _end(3)).verdict is U


@pytest.mark.parametrize(
    ("val_loss", "expected"),
    [(2.2, P), (2.2000000001, P), (2.2000003, F), (1.0, P), (math.nan, F), (math.inf, F)],
)
def test_target_is_inclusive(val_loss: float, expected: Verdict) -> None:
    """The last validation loss passes at the target, and fails at the next 32-bit float."""
    assert _target(3.0, val_loss) is expected


def test_target_is_that_of_the_last_epoch() -> None:
    """The model is that of the last epoch, so a better one before does not help."""
    assert _target(2.0, 3.0) is F
    assert _target(3.0, 2.0) is P


def test_target_tells_last_and_best() -> None:
    """The reason shows the last loss and the best."""
    result = judge_target(_by_epoch(2.0, 3.0), 2.2, _end(2))
    assert result.reason == ("val_loss 3 at epoch 1, best 2 at epoch 0: above the target 2.2")


@pytest.mark.parametrize("status", ["RUNNING", "INTERRUPTED"])
def test_target_is_not_judged_before_the_end(status: str) -> None:
    """A run that goes on or can be resumed has no last epoch yet."""
    assert _target(1.0, status=status) is U
    assert _target(9.0, status=status) is U


@pytest.mark.parametrize("status", ["OK", "EARLY_STOP", "ABORTED", None])
def test_target_is_judged_at_any_end(status: str | None) -> None:
    """However the run ended, its last epoch counts."""
    assert (_target(1.0, status=status), _target(9.0, status=status)) == (P, F)


def test_target_is_not_judged_without_epochs_or_target() -> None:
    """Without an epoch, its last one or a target there is nothing to compare."""
    assert _target() is U
    assert _target(1.0, epochs=2) is U
    assert _target(1.0, target=None) is U
