"""A token bucket: how fast things may happen, and how many at once after a quiet time."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Bucket", "Rate"]

EPSILON = 1e-9  # of a token, which rounding may cost


@dataclass(frozen=True, kw_only=True)
class Rate:
    """How fast a bucket fills, and how much it holds.

    Attributes:
        per_s: Tokens that come in a second.
        burst: Tokens that there are at most.
    """

    per_s: float
    burst: float


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """Tokens that there were at a time. In any `t` seconds at most `per_s * t + burst` are taken.

    Attributes:
        tokens: How many.
        at_s: When.

    Example:
        >>> rate = Rate(per_s=0.5, burst=2)
        >>> bucket = Bucket(tokens=2, at_s=0.0).taken(0.0, rate).taken(0.0, rate)
        >>> bucket.wait_s(0.5, rate)
        1.5
    """

    tokens: float
    at_s: float

    def filled(self, now_s: float, rate: Rate) -> Bucket:
        """Return it with what has come since."""
        tokens = self.tokens + rate.per_s * max(0.0, now_s - self.at_s)
        return Bucket(tokens=min(float(rate.burst), tokens), at_s=now_s)

    def wait_s(self, now_s: float, rate: Rate) -> float:
        """Return the seconds until there is a token, 0 if there is one now."""
        missing = 1.0 - self.filled(now_s, rate).tokens
        return 0.0 if missing <= EPSILON else missing / rate.per_s

    def taken(self, now_s: float, rate: Rate) -> Bucket:
        """Return it with one token less; `wait_s` is 0 then."""
        filled = self.filled(now_s, rate)
        return Bucket(tokens=max(0.0, filled.tokens - 1.0), at_s=now_s)
