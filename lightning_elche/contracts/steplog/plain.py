"""Many clean lines of a step log at once, with the standard library alone."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from lightning_elche.contracts.gates.steps import SIX_FIELDS
from lightning_elche.contracts.records import StepColumns

__all__ = ["decode_plain"]

TYPES = {s.name: s.type for s in SIX_FIELDS} | {"wall_ms": "f32", "epoch": "u64", "attempt": "u64"}
OPTIONAL = ("wall_ms", "epoch", "attempt")


def decode_plain(lines: bytes) -> StepColumns | None:
    """Return the records of whole lines if all are flat and have the same fields of `StepColumns`.

    They may have more fields. `None` does not mean that a line is broken, only that it has to be
    looked at more closely.
    """
    try:
        text = lines[:-1].decode("utf-8")
        rows = text.split("\n")
        parsed = [DECODER.raw_decode(row) for row in rows]
    except (ValueError, RecursionError):
        return None
    records = [record for record, _ in parsed]
    # `raw_decode` says where a document ended: nothing must stand behind it.
    is_all = sum(end for _, end in parsed) == len(text) - len(rows) + 1
    if not is_all or set(map(type, records)) != {dict}:
        return None
    # No value is a string and no key is there twice: of those, only the last value would be left.
    if lines.count(b'"') != 2 * sum(map(len, records)):
        return None
    try:
        return _columns(records)
    except (KeyError, TypeError, OverflowError):
        return None


def _refuse(token: str) -> NoReturn:
    raise ValueError(f"{token} is not JSON.")


DECODER = json.JSONDecoder(parse_constant=_refuse)


def _columns(records: list[dict[str, Any]]) -> StepColumns:
    names = [name for name in TYPES if name in records[0]]
    lacking = [name for name in OPTIONAL if name not in names]
    if any(name in record for name in lacking for record in records):
        raise KeyError("the first record lacks fields of others")
    return StepColumns(**{name: _column(records, name) for name in names})


def _column(records: list[dict[str, Any]], name: str) -> list[Any]:
    values = [record[name] for record in records]
    types = set(map(type, values))
    if types == {int}:
        return values if TYPES[name] == "u64" else list(map(float, values))
    if TYPES[name] == "u64" or not types <= {float, int}:
        raise TypeError(f"`{name}` is not {TYPES[name]}")
    return values if types == {float} else list(map(float, values))
