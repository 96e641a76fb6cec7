"""What a task asks of its host's time, and how much of it it may take."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Claim"]


class Claim:
    """The part of its host's time that a task asks for and is granted, 0 to 1.

    Whoever splits the host calls `ask` and `take`, from whatever thread.

    Args:
        wanted: Returns the part to ask for, `None` if the task takes no part in the splitting.
        limit: Called with what the task may take, `None` if nobody limits it; on changes only.

    Attributes:
        requested: What was asked for last.
        granted: What it may take.

    Example:
        >>> claim = Claim(lambda: 1.0, print)
        >>> claim.ask()
        1.0
        >>> claim.take(0.4)
        0.4
        >>> claim.take(0.4)
    """

    def __init__(
        self, wanted: Callable[[], float | None], limit: Callable[[float | None], object]
    ) -> None:
        self._wanted, self._limit = wanted, limit
        self.requested: float | None = None
        self.granted: float | None = None

    def ask(self) -> float | None:
        """Return what to ask for now."""
        self.requested = self._wanted()
        return self.requested

    def take(self, granted: float | None) -> None:
        """Take in what is granted from now on."""
        if granted != self.granted:
            self.granted = granted
            self._limit(granted)

    def __repr__(self) -> str:
        return f"Claim(requested={self.requested}, granted={self.granted})"
