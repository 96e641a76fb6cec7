"""Small JSON files of a run: read with care, because anybody may have written them."""

from __future__ import annotations

import json
from pathlib import Path

from lightning_elche.contracts.steplog.file import open_regular

__all__ = ["MAX_BYTES", "parse_object", "read_object"]

MAX_BYTES = 1 << 24


def read_object(path: Path) -> dict[str, object]:
    """Return the object in a JSON file; `NaN` and the like are read as numbers.

    Raises:
        OSError: If the file cannot be read or is no regular one.
        ValueError: If it is no JSON object; the message says why.
    """
    with open_regular(path) as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"has more than {MAX_BYTES} bytes")
    return parse_object(content)


def parse_object(content: bytes) -> dict[str, object]:
    """Return the object in a JSON text, each of whose keys must be there once.

    Raises:
        ValueError: If there is none; the message says why.
    """
    try:
        value = json.loads(content.decode("utf-8"), object_pairs_hook=_unique)
    except RecursionError as err:
        raise ValueError("is nested too deeply") from err
    except ValueError as err:
        raise ValueError(f"is no JSON: {err}") from err
    if not isinstance(value, dict):
        raise ValueError(f"is no JSON object but a {type(value).__name__}")
    return value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key {key!r} is there twice")
        found[key] = value
    return found
