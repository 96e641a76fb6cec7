"""Tests of what the validation losses of epochs come to: aborts, ends and progress."""

from __future__ import annotations

import math

import pytest

from lightning_elche.contracts.session import EpochEnd, RunFacts
from tests.contracts.sample_runs import epoch_of
from tests.contracts.sessions import (
    EARLY_STOP,
    NEXT,
    TARGET,
    F,
    P,
    U,
    closed,
    end_of,
    session_of,
    verdicts_of,
)


def test_validation_loss_that_is_absent_aborts_the_run() -> None:
    """An epoch without its validation loss lacks a metric."""
    session = session_of()
    violation = session.val(2, None)
    assert violation is not None
    assert violation.message == "METRIC_MISSING at epoch 2: val_loss is absent"
    assert verdicts_of(session, end_of(0))["001"] is F


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e39])
def test_validation_loss_that_is_not_finite_fails_two_gates(value: float) -> None:
    """At any epoch it is an instability, and it diverges."""
    session = session_of()
    violation = session.val(0, value)
    assert violation is not None
    assert (violation.gate, violation.exit_code) == ("GATE-TRAIN-007", 27)
    verdicts = verdicts_of(session, end_of(0, "ABORTED", "NUMERICAL_INSTABILITY"))
    assert (verdicts["005"], verdicts["007"]) == (F, F)


def test_validation_loss_that_is_not_finite_fails_the_gate_that_is_declared() -> None:
    """With only one of the two gates declared it is that one's."""
    violation = session_of("GATE-TRAIN-005").val(0, math.nan)
    assert violation is not None
    assert (violation.gate, violation.exit_code) == ("GATE-TRAIN-005", 27)
    assert session_of("GATE-TRAIN-001").val(0, math.nan) is None


def test_validation_loss_is_compared_with_that_of_the_epoch_before() -> None:
    """Twice the loss passes, and more aborts the run with the epoch not closed."""
    session = session_of()
    closed(session, 1.0)
    assert session.val(1, 2.0) is None
    violation = session.val(1, 2.0000003)
    assert violation is not None
    assert (violation.exit_code, dict(session.val_losses)) == (25, {0: 1.0})
    assert verdicts_of(session, end_of(1, "ABORTED", "DIVERGENCE"))["005"] is F


def test_validation_loss_is_capped_at_the_first_epoch() -> None:
    """From scratch the cap depends on the vocabulary."""
    facts = RunFacts(mode="from_scratch", vocab_size=50257)
    session = session_of(facts=facts, knows_from_scratch=True)
    assert session.val(0, 21.0) is None
    assert session.val(0, 22.0) is not None
    assert session_of(facts=facts).val(0, 21.0) is not None


def test_divergence_is_undecided_without_a_cap() -> None:
    """Where nobody knows the vocabulary the first epoch cannot be judged, the others can."""
    session = session_of(facts=RunFacts(mode="from_scratch"), knows_from_scratch=True)
    closed(session, 9000.0, 9000.0)
    assert verdicts_of(session, end_of(2))["005"] is U
    assert session.val(2, 18001.0) is not None
    assert verdicts_of(session, end_of(2))["005"] is F


@pytest.mark.parametrize("epochs", [(0, 2), (1, 2)])
def test_missing_epoch_leaves_the_run_undecided(epochs: tuple[int, int]) -> None:
    """A missing epoch, or epochs from 1 on, may hide anything."""
    session = session_of()
    for epoch in epochs:
        session.val(epoch, 2.0)
        session.close_epoch(epoch_of(epoch))
    verdicts = verdicts_of(session, end_of(3))
    assert (verdicts["003"], verdicts["004"], verdicts["005"]) == (P, U, U)


def test_missing_epoch_does_not_hide_a_pair_that_fails() -> None:
    """Two neighbouring epochs are compared although another one is missing."""
    session = session_of()
    for epoch, val_loss in ((1, 1.0), (2, 5.0)):
        session.val(epoch, val_loss)
        session.close_epoch(epoch_of(epoch, val_loss))
    assert verdicts_of(session, end_of(3))["005"] is F


def test_epochs_that_the_run_counts_must_be_there() -> None:
    """A run that says more epochs than are on record is undecided."""
    session = session_of()
    closed(session, 3.0, 2.0)
    verdicts = verdicts_of(session, end_of(3))
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
    assert closed(session_of(), *val_losses) == ends


def test_run_is_stopped_only_by_gates_that_are_declared() -> None:
    """A contract without a gate on patience or the target does not stop for it."""
    lost, reached = [3.0] * 6, [1.0] * 3
    assert set(closed(session_of("GATE-TRAIN-003"), *lost)) == {NEXT}
    assert set(closed(session_of("GATE-TRAIN-004"), *reached)) == {NEXT}


def test_run_is_not_stopped_at_a_target_that_nobody_set() -> None:
    """Without a target there is none to reach, and none to miss."""
    session = session_of(facts=RunFacts(), hyperparameter_defaults={})
    assert closed(session, 1.0, 0.5, 0.1) == [NEXT] * 3
    assert verdicts_of(session, end_of(3))["003"] is U


def test_progress_is_told() -> None:
    """Best epoch, its loss and the misses since are known."""
    session = session_of()
    assert (session.best, session.best_epoch, session.misses) == (math.inf, None, 0)
    closed(session, 3.0, 2.0, 2.5)
    assert (session.best, session.best_epoch, session.misses) == (2.0, 1, 1)
