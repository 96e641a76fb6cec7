"""Errors of our own."""

from __future__ import annotations

import pickle

from lightning_elche.contracts.verdicts import Abort, Violation
from lightning_elche.exceptions import (
    ContractError,
    DeadlineExceeded,
    ElCheError,
    GateViolation,
    RecoveryHalted,
    WorkerBusy,
)

BROKEN = Violation(
    gate="GATE-TRAIN-005",
    abort=Abort.DIVERGENCE,
    message="DIVERGENCE at epoch 1: val_loss 7.1 > 2.0 x 3.5 (ratio 2.029)",
    epoch=1,
    field="val_loss",
    value=7.1,
    limit=7.0,
)


def test_violation_tells_what_was_broken() -> None:
    """In words and by name."""
    err = GateViolation(BROKEN, 2)
    assert str(err).startswith("DIVERGENCE at epoch 1: val_loss 7.1 > 2.0 x 3.5")
    assert (err.gate, err.status, err.exit_code) == ("GATE-TRAIN-005", "DIVERGENCE", 25)
    told = (err.step, err.epoch, err.field, err.value, err.limit, err.rank)
    assert told == (None, 1, "val_loss", 7.1, 7.0, 2)


def test_violation_travels_between_processes() -> None:
    """With all it knows."""
    err = pickle.loads(pickle.dumps(GateViolation(BROKEN, 2, True)))
    assert (err.violation, err.rank, err.is_child) == (BROKEN, 2, True)


def test_errors_can_be_caught_together_or_by_their_kind() -> None:
    """A broken contract is a state of the run, an invalid one bad input."""
    assert issubclass(GateViolation, (ElCheError, RuntimeError))
    assert isinstance(ContractError("no version", ()), (ElCheError, ValueError))


def test_halt_travels_between_processes() -> None:
    """With all it knows."""
    err = pickle.loads(pickle.dumps(RecoveryHalted("3 rollbacks in 10 steps", 7, 4, 1, True)))
    assert str(err) == (
        "3 rollbacks in 10 steps (rank 1, step 7). The parameters in memory are spoiled."
    )
    assert (err.step, err.level, err.is_poisoned, err.exit_code) == (7, 4, True, 40)


def test_deadline_is_a_timeout_to_who_does_not_know_us() -> None:
    """And names the task."""
    err = pickle.loads(pickle.dumps(DeadlineExceeded("publish", 2.0)))
    assert isinstance(err, TimeoutError)
    assert str(err) == "Task 'publish' was not over within 2 seconds."


def test_busy_worker_says_why() -> None:
    """And names the task."""
    err = WorkerBusy("publish", "2 of 2 threads are stuck")
    assert str(err) == "Task 'publish' was not taken: 2 of 2 threads are stuck."
