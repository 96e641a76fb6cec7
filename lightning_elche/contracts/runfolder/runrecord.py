"""The run record as it is read back, whoever wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from lightning_elche.contracts.grammar.schema import schema_problems
from lightning_elche.contracts.model import Hyperparameters
from lightning_elche.contracts.records import RunRecord
from lightning_elche.contracts.runfolder.jsonfile import read_object
from lightning_elche.contracts.strictjson import number_of

__all__ = ["hyperparameters_of", "read_run"]

# What a record may leave out, and what is then known.
UNKNOWN: Mapping[str, Any] = {
    "stop_reason": None,
    "exit_code": None,
    "started_at": "",
    "updated_at": "",
    "planned_batches": None,
    "tokens_seen": 0,
    "vocab_size": None,
    "hyperparameters": {},
    "explicit": (),
    "seed": None,
    "determinism": {},
    "provenance": None,
    "gpu_util_source": "unavailable",
    "token_unit": "sample",
}


def read_run(path: Path) -> RunRecord:
    """Read a run record.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is not one; the message says why.
    """
    told = read_object(path)
    problems = schema_problems(told, schema="run-v1")
    if problems:
        raise ValueError(f"is no run record: {'; '.join(one.message for one in problems)}")
    facts: dict[str, Any] = {**UNKNOWN, **told}
    for name in ("explicit", "logged_ranks", "artifact_failures"):
        facts[name] = tuple(facts.get(name, ()))
    return RunRecord(
        **{one.name: facts[one.name] for one in fields(RunRecord) if one.name in facts}
    )


def hyperparameters_of(run: RunRecord) -> Hyperparameters | None:
    """Return the hyperparameters that a run has used; `None` if it does not tell all of them."""
    told = run.hyperparameters
    regime, warmup_steps = told.get("regime"), told.get("warmup_steps")
    lr_max, target = (number_of(told.get(name)) for name in ("lr_max", "target_val_loss"))
    if not isinstance(regime, str) or lr_max is None or not isinstance(warmup_steps, int):
        return None
    if target is None and told.get("target_val_loss") is not None:
        return None
    return Hyperparameters(
        regime=regime, lr_max=lr_max, warmup_steps=warmup_steps, target_val_loss=target
    )
