"""The gates over a step log, and what they find in the records they are given."""

from __future__ import annotations

from typing import Any

from lightning_elche.contracts.gates.stepgates import StepGates
from lightning_elche.contracts.model import ThresholdCheck
from lightning_elche.contracts.verdicts import GateResult, Verdict
from tests.contracts.sample_runs import STEP_IDS, contract_of

__all__ = [
    "INSTABILITY",
    "MEAN_WALL",
    "METRICS",
    "F",
    "P",
    "U",
    "gates_of",
    "result_of",
    "verdicts_of",
]

METRICS, INSTABILITY, THROUGHPUT, EXHAUST = STEP_IDS
P, F, U = Verdict.PASS, Verdict.FAIL, Verdict.INDETERMINATE
MEAN_WALL = ThresholdCheck(metric="wall_ms", stat="mean", steps=(2, 9), max=25.0)


def gates_of(*records: object, **options: Any) -> StepGates:
    gates = StepGates(contract_of(*STEP_IDS, **options))
    for record in records:
        gates.step(record)  # type: ignore[arg-type]
    return gates


def verdicts_of(gates: StepGates) -> list[Verdict]:
    return [result.verdict for result in gates.results()]


def result_of(gates: StepGates, gate: str) -> GateResult:
    return next(result for result in gates.results() if result.gate == gate)
