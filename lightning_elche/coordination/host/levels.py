"""How bad a number is, without a change of mind at every jitter."""

from __future__ import annotations

import enum

__all__ = ["Level", "LevelWatch"]


class Level(enum.IntEnum):
    """How bad a number is."""

    OK = 0
    WARN = 1
    CRITICAL = 2


class LevelWatch:
    """Enters a level after some numbers in a row above its limit, and leaves it after some below.

    Args:
        warn: Limit of `WARN`; `None` for none.
        critical: Limit of `CRITICAL`; `None` for none.
        hysteresis: How far below its limit a level is left.
        samples: How many in a row it takes.

    Attributes:
        level: The present one.

    Example:
        >>> watch = LevelWatch(warn=80.0, critical=None, hysteresis=3.0, samples=2)
        >>> [watch.add(value).name for value in (81.0, 82.0, 79.0, 76.0, 76.0)]
        ['OK', 'WARN', 'WARN', 'WARN', 'OK']
    """

    def __init__(
        self, *, warn: float | None, critical: float | None, hysteresis: float, samples: int
    ) -> None:
        limits = ((Level.WARN, warn), (Level.CRITICAL, critical))
        self._limits = [(level, limit) for level, limit in limits if limit is not None]
        self._hysteresis, self._samples = hysteresis, samples
        self.level = Level.OK
        self._asked: list[Level] = []  # of the latest numbers, as long as they ask for a change

    def add(self, value: float) -> Level:
        """Take in a number, and return the level."""
        over, kept = self._highest(value), self._highest(value + self._hysteresis)
        wanted = over if over > self.level else min(self.level, kept)
        if self._asked and (self._asked[-1] > self.level) != (wanted > self.level):
            self._asked.clear()
        if wanted == self.level:
            self._asked.clear()
            return self.level
        self._asked.append(wanted)
        if len(self._asked) >= self._samples:
            # As far as all of them ask for.
            self.level = (min if wanted > self.level else max)(self._asked)
            self._asked.clear()
        return self.level

    def _highest(self, value: float) -> Level:
        return max((level for level, limit in self._limits if value > limit), default=Level.OK)
