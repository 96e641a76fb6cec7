"""How busy a machine should be."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TargetConfig"]


@dataclass(frozen=True, kw_only=True)
class TargetConfig:
    """The range in which utilization should lie, the one source of it for all that steers by it.

    Args:
        min_pct: Lower end of the range.
        optimal_pct: What the governor steers to.
        max_pct: Upper end of the range.
        scale_up_below_pct: Below it there is room for more work.
        scale_down_above_pct: Above it there should be less.
    """

    min_pct: float = 60.0
    optimal_pct: float = 70.0
    max_pct: float = 80.0
    scale_up_below_pct: float = 55.0
    scale_down_above_pct: float = 85.0

    def __post_init__(self) -> None:
        """Validate."""
        names = ("scale_up_below_pct", "min_pct", "optimal_pct", "max_pct", "scale_down_above_pct")
        below, limit = 0.0, "0"
        for name in names:
            value = getattr(self, name)
            if not below <= value <= 100.0:
                raise ValueError(
                    f"`{name}` must be in [{below:g}, 100], got {value}. It must not be below "
                    f"{limit}."
                )
            below, limit = value, f"`{name}`"

    def is_in_range(self, percent: float) -> bool:
        """Return whether a utilization is as it should be."""
        return self.min_pct <= percent <= self.max_pct
