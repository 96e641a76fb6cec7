"""Errors of our own."""

from __future__ import annotations

import pickle

from lightning_elche.contracts.verdicts import Abort, Violation
from lightning_elche.exceptions import ContractError, ElCheError, GateViolation

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
