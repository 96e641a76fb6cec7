"""Violations as facts of an ABORT event, and back; which gates an abort fails."""

from __future__ import annotations

from collections.abc import Mapping

from lightning_elche.contracts.gates import ids as gateids
from lightning_elche.contracts.strictjson import float_of, jsonable
from lightning_elche.contracts.verdicts import Abort, Violation

__all__ = ["abort_facts", "abort_named", "gates_failed", "violation_of"]

GATES = {
    Abort.METRIC_MISSING: gateids.METRICS,
    Abort.ARTIFACT_WRITE_FAILED: gateids.ARTIFACTS,
    Abort.DIVERGENCE: gateids.DIVERGENCE,
    Abort.NUMERICAL_INSTABILITY: gateids.INSTABILITY,
    Abort.THROUGHPUT_OUT_OF_RANGE: gateids.THROUGHPUT,
    Abort.STREAM_EXHAUSTED: gateids.EXHAUST,
}


def gates_failed(violation: Violation) -> tuple[str, ...]:
    """Return the ids of the gates that an abort fails."""
    gate = GATES[violation.abort]
    is_poisoned = violation.abort is Abort.NUMERICAL_INSTABILITY
    if is_poisoned and violation.field == "val_loss":
        return (gate, gateids.DIVERGENCE)
    return (gate,)


def abort_facts(violation: Violation) -> dict[str, object]:
    """Return what an ABORT event says: JSON, with numbers that are not finite as text."""
    return {
        "abort": violation.abort.name,
        "gate": violation.gate,
        "message": violation.message,
        "step": violation.step,
        "epoch": violation.epoch,
        "field": violation.field,
        "value": jsonable(violation.value),
        "limit": jsonable(violation.limit),
    }


def violation_of(facts: Mapping[str, object]) -> Violation | None:
    """Return what an ABORT event tells; `None` if it names no abort that is known."""
    abort = abort_named(facts.get("abort"))
    if abort is None:
        return None
    return Violation(
        gate=_text(facts.get("gate")) or GATES[abort],
        abort=abort,
        message=_text(facts.get("message")) or abort.name,
        step=_integer(facts.get("step")),
        epoch=_integer(facts.get("epoch")),
        field=_text(facts.get("field")),
        value=float_of(facts.get("value")),
        limit=float_of(facts.get("limit")),
    )


def abort_named(name: object) -> Abort | None:
    """Return the abort of this name; `None` if there is none."""
    return Abort.__members__.get(name) if isinstance(name, str) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
