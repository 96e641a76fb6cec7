"""A clock that moves when it is told to."""

from __future__ import annotations


class FakeClock:
    """Returns the same time until it is advanced."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds
