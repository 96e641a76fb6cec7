"""Many clean lines of a step log at once, with msgspec."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec

from lightning_elche.contracts.gates.steps import SIX_FIELDS
from lightning_elche.contracts.records import StepColumns

__all__ = ["decode_fast"]

REQUIRED: dict[str, type] = {s.name: int if s.type == "u64" else float for s in SIX_FIELDS}
OPTIONAL: dict[str, type] = {"wall_ms": float, "epoch": int, "attempt": int}
TYPES = REQUIRED | OPTIONAL


def decode_fast(lines: bytes) -> StepColumns | None:
    """Return the records of whole lines if all have the fields of the first, and no others.

    `None` does not mean that a line is broken, only that it has to be looked at more closely.
    """
    rows = lines[:-1].split(b"\n")
    names = _names(rows[0])
    if names is None:
        return None
    try:
        records = list(map(_decoder(names), rows))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    # Values are numbers, so that a colon stands behind every key and nowhere else. Of a key that
    # is there twice msgspec keeps the last value and says nothing.
    if lines.count(b":") != len(names) * len(rows):
        return None
    return StepColumns(
        step=[record.step for record in records],
        train_loss=[record.train_loss for record in records],
        grad_norm=[record.grad_norm for record in records],
        lr=[record.lr for record in records],
        tokens_per_sec=[record.tokens_per_sec for record in records],
        gpu_util_pct=[record.gpu_util_pct for record in records],
        wall_ms=[record.wall_ms for record in records] if "wall_ms" in names else None,
        epoch=[record.epoch for record in records] if "epoch" in names else None,
        attempt=[record.attempt for record in records] if "attempt" in names else None,
    )


def _names(row: bytes) -> tuple[str, ...] | None:
    """Return the fields of a record in the order of `TYPES`; `None` if they are others."""
    try:
        record = json.loads(row)
    except (ValueError, RecursionError):
        return None
    is_known = isinstance(record, dict) and REQUIRED.keys() <= record.keys() <= TYPES.keys()
    return tuple(name for name in TYPES if name in record) if is_known else None


@lru_cache
def _decoder(names: tuple[str, ...]) -> Callable[[bytes], Any]:
    """Return a function that decodes a line with exactly these fields; at most eight exist."""
    fields = [(name, TYPES[name]) for name in names]
    line = msgspec.defstruct("Line", fields, forbid_unknown_fields=True, gc=False)
    return msgspec.json.Decoder(line).decode
