"""The families of contract files: what a file is, seen from its keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_elche.contracts.grammar.vocabulary import TRAINING_BLOCKS

__all__ = ["family_of", "gate_entries", "is_own_dialect", "is_training", "mapping_at"]

TRAINING_PREFIX = "GATE-TRAIN-"
MOST_GATES = 1000


def is_own_dialect(data: Mapping[str, Any]) -> bool:
    """Return whether the file is closed: whatever is not known is an error."""
    return "dialect" in data


def gate_entries(data: Mapping[str, Any]) -> list[tuple[int, Mapping[str, Any]]]:
    """Return the gates with their index; a gate is a mapping whose `id` is text.

    At most 1000, because the schemas refuse more.
    """
    gates = data.get("gates")
    entries = enumerate(gates[:MOST_GATES]) if isinstance(gates, list) else ()
    return [
        (i, gate)
        for i, gate in entries
        if isinstance(gate, dict) and isinstance(gate.get("id"), str)
    ]


def mapping_at(data: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """Return the mapping that `keys` lead to, an empty one if there is none."""
    value: object = data
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def is_training(data: Mapping[str, Any]) -> bool:
    """Return whether the blocks of a training loop have their meaning here."""
    gates = (gate["id"] for _, gate in gate_entries(data))
    has_gate = any(gate.startswith(TRAINING_PREFIX) for gate in gates)
    return has_gate or (is_own_dialect(data) and _has_block(data))


def family_of(data: Mapping[str, Any]) -> str:
    """Return the family of a contract.

    "A" is a kernel, "B" a training loop, "B'" a pipeline, "C" a stub, "D" anything else.
    """
    gates = gate_entries(data)
    if gates and (_is_loop(data) or _has_block(data)):
        return "B"
    if any("condition" in gate for _, gate in gates):
        return "B'"
    if "kind" in data and not gates:
        return "C"
    return "A" if "equations" in data and not gates else "D"


def _is_loop(data: Mapping[str, Any]) -> bool:
    return mapping_at(data, "metadata").get("kind") == "training-loop"


def _has_block(data: Mapping[str, Any]) -> bool:
    return any(block in data for block in TRAINING_BLOCKS)
