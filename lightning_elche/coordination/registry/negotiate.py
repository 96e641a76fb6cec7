"""How tasks split what a host has."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["negotiate"]


def negotiate(claims: Sequence[tuple[float, float]], target: float) -> tuple[float, ...]:
    """Return what each gets: what it asks for, or else its share by weight of what is left.

    Grants are `min(requested, level * weight)` for the one level at which they sum to `target`, or
    what they ask for where that is less. Their order makes no difference. O(n log n).

    Args:
        claims: What each asks for, and its weight, which is > 0.
        target: What there is.

    Example:
        >>> negotiate([(0.25, 1.0), (1.0, 1.0), (1.0, 2.0)], 1.0)
        (0.25, 0.25, 0.5)
    """
    grants = [0.0] * len(claims)
    left, weights = target, sum(weight for _, weight in claims)
    # Those that ask for least per weight first: they get it, and leave the rest to the others.
    order = sorted(range(len(claims)), key=lambda i: claims[i][0] / claims[i][1])
    for rank, index in enumerate(order):
        requested, weight = claims[index]
        if weights <= 0.0 or requested * weights > left * weight:
            level = max(0.0, left) / sum(claims[i][1] for i in order[rank:])
            for i in order[rank:]:
                grants[i] = level * claims[i][1]
            break
        grants[index] = requested
        left, weights = left - requested, weights - weight
    return tuple(grants)
