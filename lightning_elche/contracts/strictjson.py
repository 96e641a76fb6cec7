"""JSON as the standard has it: NaN and infinities are no numbers there."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

__all__ = ["dump_strictly", "float_of", "jsonable", "number_of"]


def jsonable(value: object) -> object:
    """Return `value` with mappings as dicts, sequences as lists and non-finite numbers as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(float(value))
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [jsonable(item) for item in value]
    return value


def float_of(value: object) -> float | None:
    """Return the number that `jsonable` has made `value` of; `None` if it was none."""
    if isinstance(value, str):
        return float(value) if value in ("nan", "inf", "-inf") else None
    return number_of(value)


def number_of(value: object) -> float | None:
    """Return a number as a float, infinite if it is too large for one; `None` for all else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def dump_strictly(value: object, *, indent: int | None = None) -> bytes:
    """Return `value` as JSON in UTF-8, on one line unless `indent` is given, with a line end."""
    text = json.dumps(jsonable(value), indent=indent, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace") + b"\n"
