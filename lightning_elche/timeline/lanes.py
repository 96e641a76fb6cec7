"""A rank's time in columns, each with the two causes that took most of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lightning_elche.timeline.aligned import RunTimeline
from lightning_elche.timeline.causes import CAUSES, Slice, columns_of

__all__ = ["EMPTY", "coded", "lanes_of"]

MAX_COLUMNS = 2000
MAX_CHARACTERS = 900_000
CHARACTERS = 3  # of a column
EMPTY = "..0"
PART_NS = 600 * 10**9
CODES = dict(zip(CAUSES, "abcdefghijkl", strict=True))
TENTHS = 10


def coded(slices: Iterable[Slice], begin_ns: float, end_ns: float, count: int) -> str:
    """Return three characters for each of `count` columns: two causes, and tenths of the second.

    "a" is the first cause of `CAUSES`; "..0" is where the rank had not begun or was gone.
    """
    return "".join(map(_code, columns_of(slices, begin_ns, end_ns, count)))


def lanes_of(timeline: RunTimeline) -> list[dict[str, Any]]:
    """Return the whole run, and its first and last ten minutes if it is longer, as lanes."""
    begin, end = timeline.begin_ns, timeline.end_ns
    parts = [("The whole run", begin, end)]
    if end - begin > PART_NS:
        parts.append(("The first ten minutes", begin, begin + PART_NS))
        parts.append(("The last ten minutes", end - PART_NS, end))
    room = MAX_CHARACTERS // (CHARACTERS * len(parts) * max(1, len(timeline.ranks)))
    count = max(50, min(MAX_COLUMNS, room))
    return [
        {
            "title": title,
            "begin_s": round(low / 1e9, 3),
            "end_s": round(high / 1e9, 3),
            "rows": [
                coded(rank.slices.between(low, high), low, high, count) for rank in timeline.ranks
            ],
        }
        for title, low, high in parts
    ]


def _code(column: Mapping[str, float]) -> str:
    if not column:
        return EMPTY
    ordered = sorted(column.items(), key=lambda item: -item[1])
    first = CODES[ordered[0][0]]
    if len(ordered) == 1:
        return f"{first}{first}0"
    tenths = round(TENTHS * ordered[1][1] / sum(column.values()))
    return f"{first}{CODES[ordered[1][0]]}{tenths}"
