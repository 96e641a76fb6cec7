"""What a run tells of itself before its first step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightning_elche.contracts.float32 import epoch_zero_limit
from lightning_elche.contracts.gates.divergence import EpochZeroCap
from lightning_elche.contracts.model import Contract, Hyperparameters

__all__ = ["RunFacts", "epoch_zero_cap"]


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What a run tells of itself; `None` stands for what nobody knows.

    Attributes:
        mode: "finetune" or "from_scratch".
        vocab_size: Number of tokens.
        hyperparameters: Those in use.
        explicit: Names of those that the user set.
        device: "cpu", "cuda", ...
        gpu_util_source: "nvml", "none" (no GPU) or "unavailable" (a GPU, but no NVML).
        provenance: Where the data come from, as in `run.json`.
        planned_batches: Batches of an epoch.
        world_size: Number of ranks.
    """

    mode: str | None = None
    vocab_size: int | None = None
    hyperparameters: Hyperparameters | None = None
    explicit: frozenset[str] = frozenset()
    device: str | None = None
    gpu_util_source: str | None = None
    provenance: Mapping[str, Any] | None = None
    planned_batches: int | None = None
    world_size: int = 1


def epoch_zero_cap(contract: Contract, facts: RunFacts) -> EpochZeroCap | None:
    """Return the limit of the first epoch, `None` if the run does not tell what it depends on."""
    mode = facts.mode if contract.knows_from_scratch else "finetune"
    if mode is None or (mode == "from_scratch" and facts.vocab_size is None):
        return None
    return EpochZeroCap(mode=mode, limit=epoch_zero_limit(mode, facts.vocab_size))
