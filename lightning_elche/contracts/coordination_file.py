"""Reads the file that says how runs are coordinated, as far as its form goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning_elche.contracts.grammar.schema import schema_problems
from lightning_elche.contracts.grammar.yamltree import MOST_BYTES, read_document
from lightning_elche.contracts.steplog.file import open_regular

__all__ = ["SCHEMA", "json_path", "read_coordination"]

SCHEMA = "coordination-v1"
OWN = "x-"  # keys for notes of one's own


def read_coordination(path: Path) -> dict[str, Mapping[str, object]]:
    """Return the sections of a coordination file, by name; values have the types of the schema.

    Args:
        path: A regular file.

    Raises:
        ValueError: If it is no YAML, or not as the schema wants it; the message says where.
        OSError: If it cannot be read.
    """
    with open_regular(path) as file:
        value = read_document(file.read(MOST_BYTES + 1), path=str(path)).value
    problems = schema_problems(value, schema=SCHEMA)
    if problems:
        first = problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ValueError(
            f"{path}::{json_path(first.steps)}: {first.message}{more}. "
            "`elche coord config` prints a valid file."
        )
    assert isinstance(value, dict)
    return {
        name: {key: one for key, one in section.items() if not key.startswith(OWN)}
        for name, section in value.items()
        if isinstance(section, dict) and not name.startswith(OWN)
    }


def json_path(steps: Sequence[str | int]) -> str:
    """Return keys and indices as a path.

    Example:
        >>> json_path(("schedule", "peak", 0))
        '$.schedule.peak[0]'
    """
    return "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
