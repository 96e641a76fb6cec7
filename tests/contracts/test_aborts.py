"""Tests of telling an abort, and of the gates that it fails."""

from __future__ import annotations

import json
import math

import pytest

from lightning_elche.contracts.aborts import (
    abort_facts,
    abort_named,
    gates_failed,
    violation_of,
)
from lightning_elche.contracts.verdicts import Abort, Violation

FULL = Violation(
    gate="GATE-TRAIN-007",
    abort=Abort.NUMERICAL_INSTABILITY,
    message="NUMERICAL_INSTABILITY at step 3: lr = inf",
    step=3,
    epoch=1,
    field="lr",
    value=math.inf,
    limit=2.0,
)


@pytest.mark.parametrize(
    ("abort", "gate", "code"),
    [
        (Abort.METRIC_MISSING, "GATE-TRAIN-001", 21),
        (Abort.ARTIFACT_WRITE_FAILED, "GATE-TRAIN-002", 22),
        (Abort.DIVERGENCE, "GATE-TRAIN-005", 25),
        (Abort.NUMERICAL_INSTABILITY, "GATE-TRAIN-007", 27),
        (Abort.THROUGHPUT_OUT_OF_RANGE, "GATE-TRAIN-008", 28),
        (Abort.STREAM_EXHAUSTED, "GATE-TRAIN-EXHAUST", 31),
    ],
)
def test_abort_fails_its_gate(abort: Abort, gate: str, code: int) -> None:
    """Each abort fails the gate that its exit code names."""
    violation = Violation(gate="", abort=abort, message="")
    assert (gates_failed(violation), violation.exit_code) == ((gate,), code)


def test_unstable_validation_loss_fails_two_gates() -> None:
    """A validation loss that is not finite also diverges; a training loss does not."""
    violation = Violation(gate="", abort=Abort.NUMERICAL_INSTABILITY, message="", field="val_loss")
    assert gates_failed(violation) == ("GATE-TRAIN-007", "GATE-TRAIN-005")


@pytest.mark.parametrize(
    "violation", [FULL, Violation(gate="G", abort=Abort.DIVERGENCE, message="m", epoch=0)]
)
def test_violation_can_be_read_back_from_its_event(violation: Violation) -> None:
    """An event in strict JSON tells all of a violation, infinities included."""
    text = json.dumps(abort_facts(violation), allow_nan=False)
    assert violation_of(json.loads(text)) == violation


def test_violation_is_read_from_an_event_with_little_in_it() -> None:
    """The name of the abort is enough, and values of wrong types are left out."""
    facts = {"abort": "DIVERGENCE", "step": True, "epoch": "1", "value": "x", "message": 3}
    assert violation_of(facts) == Violation(
        gate="GATE-TRAIN-005", abort=Abort.DIVERGENCE, message="DIVERGENCE"
    )


@pytest.mark.parametrize("name", ["OOPS", "divergence", None, 25, []])
def test_violation_is_not_read_from_an_unknown_abort(name: object) -> None:
    """An event that names no abort that is known is none."""
    assert abort_named(name) is None
    assert violation_of({"abort": name}) is None
