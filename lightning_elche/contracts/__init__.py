"""Training contracts: read, enforced, checked afterwards; without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_elche.lazy import lazy_names

if TYPE_CHECKING:
    from lightning_elche.contracts.checking.check import check_run, compare_runs
    from lightning_elche.contracts.facts import RunFacts
    from lightning_elche.contracts.float32 import epoch_zero_limit
    from lightning_elche.contracts.gates.divergence import check_non_divergence
    from lightning_elche.contracts.gates.hyperparameters import resolve_hyperparameters
    from lightning_elche.contracts.gates.steps import check_step
    from lightning_elche.contracts.grammar.diff import diff_contracts
    from lightning_elche.contracts.model import Contract, Hyperparameters
    from lightning_elche.contracts.records import EpochRecord, StepRecord
    from lightning_elche.contracts.session import GateSession
    from lightning_elche.contracts.verdicts import Finding, Report, Violation

__all__ = [
    "Contract",
    "EpochRecord",
    "Finding",
    "GateSession",
    "Hyperparameters",
    "Report",
    "RunFacts",
    "StepRecord",
    "Violation",
    "check_non_divergence",
    "check_run",
    "check_step",
    "compare_runs",
    "diff_contracts",
    "epoch_zero_limit",
    "resolve_hyperparameters",
]

_MODULES = {
    "Contract": "model",
    "EpochRecord": "records",
    "Finding": "verdicts",
    "GateSession": "session",
    "Hyperparameters": "model",
    "Report": "verdicts",
    "RunFacts": "facts",
    "StepRecord": "records",
    "Violation": "verdicts",
    "check_non_divergence": "gates.divergence",
    "check_run": "checking.check",
    "check_step": "gates.steps",
    "compare_runs": "checking.check",
    "diff_contracts": "grammar.diff",
    "epoch_zero_limit": "float32",
    "resolve_hyperparameters": "gates.hyperparameters",
}

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
