"""How long something took, as a person would say it."""

from __future__ import annotations

__all__ = ["duration_text"]

MINUTE, HOUR = 60, 3600
LONG_S = 120.0  # up to here seconds are easy to grasp


def duration_text(seconds: float) -> str:
    """Return "2.8 s", "12 min 30 s" or "24 h 16 min"."""
    if seconds < LONG_S:
        return f"{seconds:.3g} s" if seconds < 1.0 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 2 * HOUR:
        return f"{whole // MINUTE} min {whole % MINUTE} s"
    return f"{whole // HOUR} h {whole % HOUR // MINUTE} min"
