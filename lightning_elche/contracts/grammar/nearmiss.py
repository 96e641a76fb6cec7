"""Unknown keys that look like a known one, and so are most likely mistyped."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["closest_key", "edit_distance"]

MOST_EDITS = 2
SHORTEST_KNOWN = 6


def closest_key(key: str, *, known: Iterable[str]) -> str | None:
    """Return the known key that `key` seems to mean, `None` if it resembles none.

    Case and `-` for `_` never matter; up to two letters may differ from known keys of six or more.
    """
    plain = key.lower().replace("-", "_")
    near = [(_distance(plain, one), one) for one in known if abs(len(one) - len(plain)) <= 2]
    distance, name = min(near, default=(MOST_EDITS + 1, ""))
    return name if distance <= MOST_EDITS else None


def edit_distance(one: str, other: str) -> int:
    """Return how many letters must be inserted, deleted or replaced (Levenshtein)."""
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, start=1):
        before, row[0] = row[0], i
        for j, wanted in enumerate(other, start=1):
            replaced = before + (letter != wanted)
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, replaced)
    return row[-1]


def _distance(plain: str, known: str) -> int:
    if plain == known:
        return 0
    return edit_distance(plain, known) if len(known) >= SHORTEST_KNOWN else MOST_EDITS + 1
