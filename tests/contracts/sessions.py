"""Sessions that judge a run, the runs they are given, and what they find."""

from __future__ import annotations

from typing import Any

from lightning_elche.contracts.gates.stepgates import StepGates
from lightning_elche.contracts.model import Convergence
from lightning_elche.contracts.session import EpochEnd, GateSession, RunEnd, RunFacts
from lightning_elche.contracts.verdicts import GateResult, Verdict
from tests.contracts.sample_runs import ALL_IDS, FINETUNE, contract_of, epoch_of, step_of

__all__ = [
    "EARLY_STOP",
    "NEXT",
    "REAL",
    "TARGET",
    "UNAVAILABLE",
    "F",
    "P",
    "U",
    "closed",
    "end_of",
    "healthy",
    "result_of",
    "session_of",
    "verdicts_of",
]

P, F, U = Verdict.PASS, Verdict.FAIL, Verdict.INDETERMINATE
NEXT, EARLY_STOP, TARGET = EpochEnd
REAL = {"synthetic": False, "fast_dev_run": False, "overfit_batches": 0.0}
FACTS = RunFacts(
    mode="finetune",
    hyperparameters=FINETUNE,
    device="cpu",
    gpu_util_source="none",
    provenance=REAL,
    planned_batches=5,
)
RULES = Convergence(patience_epochs=2, min_epochs_before_early_stop=3)
UNAVAILABLE = RunFacts(gpu_util_source="unavailable")


def session_of(*ids: str, facts: RunFacts = FACTS, **options: Any) -> GateSession:
    return GateSession(contract_of(*(ids or ALL_IDS), **{"convergence": RULES, **options}), facts)


def closed(session: GateSession, *val_losses: float) -> list[EpochEnd]:
    """Close epochs with these validation losses, and return what followed each."""
    ends = []
    for epoch, val_loss in enumerate(val_losses):
        session.val(epoch, val_loss)
        ends.append(session.close_epoch(epoch_of(epoch, val_loss)))
    return ends


def end_of(epochs: int, status: str = "OK", stop_reason: str | None = None) -> RunEnd:
    return RunEnd(status=status, stop_reason=stop_reason, epochs_completed=epochs)


def verdicts_of(session: GateSession, end: RunEnd, *logs: StepGates) -> dict[str, Verdict]:
    return {
        one.gate.removeprefix("GATE-TRAIN-"): one.verdict for one in session.verdicts(end, logs)
    }


def result_of(session: GateSession, gate: str, end: RunEnd) -> GateResult:
    return next(one for one in session.verdicts(end) if one.gate == f"GATE-TRAIN-{gate}")


def healthy() -> GateSession:
    session = session_of()
    for step in range(3):
        session.step(step_of(step))
    closed(session, 3.0, 2.5, 2.0)
    return session
