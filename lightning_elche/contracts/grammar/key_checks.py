"""Keys of contracts that nobody knows: most are mistyped, and would be ignored without a word."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from lightning_elche.contracts.grammar.families import (
    gate_entries,
    is_own_dialect,
    is_training,
    mapping_at,
)
from lightning_elche.contracts.grammar.nearmiss import closest_key
from lightning_elche.contracts.grammar.problem import Data, GrammarProblem, Steps
from lightning_elche.contracts.grammar.vocabulary import BLOCK_KEYS, GATE_KEYS, TOP_LEVEL_KEYS

__all__ = ["near_misses", "unknown_gate_keys"]

# A file has dozens; the limit keeps hostile ones from taking minutes.
MOST_UNKNOWN_KEYS = 1000
FREE = ("x-", "discharge_")


def near_misses(data: Data) -> Iterator[GrammarProblem]:
    """Find mistyped keys at the top, in gates and in blocks."""
    for steps, known, key in itertools.islice(_unknown_keys(data), MOST_UNKNOWN_KEYS):
        meant = closest_key(key, known=known)
        if meant is not None:
            message = f"key {key!r} is not known; did you mean `{meant}`?"
            yield GrammarProblem(
                rule="CT-NEARMISS", message=message, steps=(*steps, key), is_key=True
            )


def _unknown_keys(data: Data) -> Iterator[tuple[Steps, frozenset[str], str]]:
    places: list[tuple[Steps, Data, frozenset[str]]] = [((), data, TOP_LEVEL_KEYS)]
    places += [(("gates", i), gate, GATE_KEYS) for i, gate in gate_entries(data)]
    if is_training(data):
        places += [(steps, mapping_at(data, *steps), keys) for steps, keys in BLOCK_KEYS.items()]
    for steps, mapping, known in places:
        for key in mapping:
            if key not in known and not key.startswith(FREE):
                yield steps, known, key


def unknown_gate_keys(data: Data) -> Iterator[GrammarProblem]:
    """Warn of keys of gates that nobody knows and that resemble none."""
    if is_own_dialect(data):  # an error by its schema
        return
    for steps, known, key in itertools.islice(_unknown_keys(data), MOST_UNKNOWN_KEYS):
        if known is GATE_KEYS and closest_key(key, known=known) is None:
            message = f"key {key!r} of a gate is not known and is ignored"
            yield GrammarProblem(
                rule="CT-GATEKEY", message=message, steps=(*steps, key), is_key=True
            )
