"""Errors of our own."""

from __future__ import annotations

import importlib
import pickle
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import lightning_elche
from lightning_elche.contracts.verdicts import Abort, Violation
from lightning_elche.exceptions import (
    ContractError,
    DeadlineExceeded,
    ElCheError,
    GateViolation,
    RecoveryHalted,
    WorkerBusy,
)
from lightning_elche.partition.errors import PartitionPlanError

ERRORS_PAGE = Path(__file__).parents[1] / "docs" / "errors.md"
# Caught where they are raised from, wherever that is.
NEVER_LEAVE = {"CheckpointFault"}
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


def kinds_of(error: type[ElCheError]) -> Iterator[type[ElCheError]]:
    """Yield all kinds but those that the command line keeps to itself."""
    for kind in error.__subclasses__():
        if kind.__module__.startswith("lightning_elche.") and ".cli." not in kind.__module__:
            yield kind
            yield from kinds_of(kind)


def test_page_of_errors_names_each() -> None:
    """Those of partition plans by their base, `PartitionPlanError and what is below it`."""
    for module in pkgutil.walk_packages(lightning_elche.__path__, "lightning_elche."):
        if not module.name.endswith(("__main__", "steplog.fast")):  # runs; needs an extra
            importlib.import_module(module.name)
    page = ERRORS_PAGE.read_text(encoding="utf-8")
    kinds = set(kinds_of(ElCheError)) - set(kinds_of(PartitionPlanError))
    names = {kind.__name__ for kind in kinds} - NEVER_LEAVE
    assert {name for name in names if f"`{name}`" not in page} == set()
