"""One difference between two contracts, and which side of it asks for less."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

__all__ = ["NEUTRAL", "TIGHTER", "WEAKER", "Change", "became", "lowered", "raised", "removed"]

WEAKER, TIGHTER, NEUTRAL = "weaker", "tighter", "neutral"


@dataclass(frozen=True, kw_only=True)
class Change:
    """One difference between two contracts.

    Attributes:
        rule: What is changed: the id of a gate, or the key in the file.
        kind: "weaker", "tighter" or "neutral".
        message: The old and the new value.
    """

    rule: str
    kind: str
    message: str


def removed(what: str, old: Collection[str], new: Collection[str]) -> Iterator[Change]:
    """Compare what a record must have."""
    for name in old:
        if name not in new:
            yield Change(rule=name, kind=WEAKER, message=f"{what} {name!r} is not required now")
    for name in new:
        if name not in old:
            yield Change(rule=name, kind=TIGHTER, message=f"{what} {name!r} is required now")


def raised(rule: str, old: float | None, new: float | None) -> Iterator[Change]:
    """Compare an upper limit: weaker if raised or removed."""
    if old == new:
        return
    is_weaker = new is None or (old is not None and new > old)
    yield Change(rule=rule, kind=WEAKER if is_weaker else TIGHTER, message=became(old, new))


def lowered(rule: str, old: float | None, new: float | None) -> Iterator[Change]:
    """Compare a lower limit: weaker if lowered or removed."""
    if old == new:
        return
    is_weaker = new is None or (old is not None and new < old)
    yield Change(rule=rule, kind=WEAKER if is_weaker else TIGHTER, message=became(old, new))


def became(old: object, new: object) -> str:
    """Return both values as text."""
    return f"{'none' if old is None else old} became {'none' if new is None else new}"
