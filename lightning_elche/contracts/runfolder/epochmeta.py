"""The metadata of an epoch as they are read back, whoever wrote them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lightning_elche.contracts.grammar.schema import schema_problems
from lightning_elche.contracts.records import EpochRecord
from lightning_elche.contracts.runfolder.jsonfile import read_object
from lightning_elche.contracts.strictjson import number_of

__all__ = ["EpochMetadata", "read_metadata", "record_of"]

# What stands for a field that a file does not have, or of another type.
UNKNOWN: Mapping[str, Any] = {
    "train_loss": math.nan,
    "train_ppl": math.nan,
    "val_ppl": math.nan,
    "optimizer_state_sha": "",
    "wall_seconds": math.nan,
    "tokens_seen": -1,
    "grad_norm_max": math.nan,
}
FLOATS = frozenset({"train_loss", "train_ppl", "val_ppl", "wall_seconds", "grad_norm_max"})


@dataclass(frozen=True, kw_only=True)
class EpochMetadata:
    """What one file says.

    Attributes:
        epoch: The epoch by the name of the file, which `record.epoch` is, too.
        told_epoch: The epoch by its content.
        run_id: The run that it says to be of.
        record: What can be judged; `None` if it has no validation loss.
        problems: JSON pointer and message of all that is not as it should be.
    """

    epoch: int
    told_epoch: object
    run_id: object
    record: EpochRecord | None
    problems: tuple[tuple[str, str], ...]


def read_metadata(path: Path, *, epoch: int, required: Sequence[str]) -> EpochMetadata:
    """Read the metadata of an epoch.

    Args:
        path: The file.
        epoch: The epoch by its name.
        required: Fields that it must have.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is no JSON object; the message says why.
    """
    facts = read_object(path)
    unfit = _unfit(facts)
    return EpochMetadata(
        epoch=epoch,
        told_epoch=facts.get("epoch"),
        run_id=facts.get("run_id"),
        record=_record(facts, epoch, unfit),
        problems=(*_absent(facts, required), *unfit, *_infinite(facts)),
    )


def record_of(facts: Mapping[str, object], *, epoch: int) -> EpochRecord | None:
    """Return what can be judged of the metadata of an epoch; `None` without a validation loss."""
    return _record(facts, epoch, _unfit(facts))


def _record(
    facts: Mapping[str, object], epoch: int, unfit: Sequence[tuple[str, str]]
) -> EpochRecord | None:
    if "val_loss" not in facts:
        return None
    broken = {pointer[1:] for pointer, _ in unfit}
    names = {one.name for one in fields(EpochRecord)} - broken
    known = {name: facts[name] for name in names if name in facts}
    floats = {name: number_of(known[name]) for name in FLOATS & known.keys()}
    val_loss = number_of(facts["val_loss"])
    told: dict[str, Any] = {**UNKNOWN, **known, **floats}
    told |= {"epoch": epoch, "val_loss": math.nan if val_loss is None else val_loss}
    return EpochRecord(**told)


def _absent(facts: Mapping[str, object], required: Sequence[str]) -> list[tuple[str, str]]:
    return [("", f"{name} is absent") for name in required if name not in facts]


def _unfit(facts: Mapping[str, object]) -> list[tuple[str, str]]:
    """Return what is of another type, or outside of its range; what is absent is told before."""
    problems = schema_problems({**_ABSENT, **facts}, schema="epoch-metadata-v1")
    return [(f"/{'/'.join(map(str, one.steps))}", one.message) for one in problems]


def _infinite(facts: Mapping[str, object]) -> list[tuple[str, str]]:
    """Return numbers that are none: they pass every bound of a schema."""
    return [
        (f"/{name}", f"{name} is {value}")
        for name, value in facts.items()
        if isinstance(value, float) and not math.isfinite(value)
    ]


# Fits the schema, so that fields which a contract does not require may be absent.
_ABSENT: Mapping[str, object] = {
    "epoch": 0,
    "train_loss": 0.0,
    "val_loss": 0.0,
    "train_ppl": 0.0,
    "val_ppl": 0.0,
    "optimizer_state_sha": "0" * 64,
    "wall_seconds": 0.0,
    "tokens_seen": 0,
    "grad_norm_max": 0.0,
}
