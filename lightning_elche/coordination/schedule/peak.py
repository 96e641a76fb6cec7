"""The hours of a day in which others need the machine."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

__all__ = ["PeakHours"]

DAY_MIN = 24 * 60
TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")


@dataclass(frozen=True, kw_only=True)
class PeakHours:
    """What a clock on the wall shows from `start_min` on, and before `end_min`; past midnight too.

    On the day on which clocks are set forward the hours may be missing, on the day on which they
    are set back they may come twice.

    Attributes:
        start_min: Minutes since midnight.
        end_min: As above.
        zone: Where the clock hangs.

    Example:
        >>> peak = PeakHours.parse(["14:00", "22:00", "UTC"])
        >>> noon = 12 * 3600.0
        >>> peak.overlaps(noon, 7200.0), peak.overlaps(noon, 7201.0)
        (False, True)
    """

    start_min: int
    end_min: int
    zone: tzinfo

    @classmethod
    def parse(cls, peak: Sequence[str]) -> PeakHours:
        """Return the hours that a configuration means.

        Args:
            peak: Begin, end and time zone.

        Raises:
            ValueError: If it is none.
        """
        if isinstance(peak, str) or len(peak) != 3:
            raise ValueError(
                "`peak` must be begin, end and time zone such as ['14:00', '22:00', 'UTC'], got "
                f"{peak!r}."
            )
        start, end = _minutes(peak[0]), _minutes(peak[1])
        if start == end:
            raise ValueError(f"`peak` must begin and end at different times, got {peak[0]} twice.")
        return cls(start_min=start, end_min=end, zone=_zone(peak[2]))

    def is_peak(self, now: float) -> bool:
        """Return whether a moment lies in the hours.

        Args:
            now: Seconds since 1970.
        """
        minute = self._minute(now)
        if self.start_min < self.end_min:
            return self.start_min <= minute < self.end_min
        return minute >= self.start_min or minute < self.end_min

    def overlaps(self, now: float, duration_s: float) -> bool:
        """Return whether any moment of a run lies in the hours.

        Args:
            now: When it begins, in seconds since 1970.
            duration_s: How long it lasts; its end does not belong to it.
        """
        return self.is_peak(now) or self.seconds_until(now, is_peak=True) < duration_s

    def seconds_until(self, now: float, *, is_peak: bool) -> float:
        """Return the seconds until a moment that lies in the hours, or one that does not.

        Args:
            now: Seconds since 1970.
            is_peak: Which of them.
        """
        at, boundary = now, self.start_min if is_peak else self.end_min
        while self.is_peak(at) != is_peak:
            ahead = (boundary - self._minute(at)) % DAY_MIN
            next_at = (math.floor(at / 60.0) + ahead) * 60.0
            # Clocks are set in between: go by the minute, which is what they show at least.
            if self._offset(at) != self._offset(next_at):
                next_at = (math.floor(at / 60.0) + 1) * 60.0
            at = next_at
        return at - now

    def _minute(self, now: float) -> int:
        local = datetime.fromtimestamp(now, self.zone)
        return local.hour * 60 + local.minute

    def _offset(self, now: float) -> object:
        return datetime.fromtimestamp(now, self.zone).utcoffset()


def _minutes(text: object) -> int:
    match = TIME.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(
            f"`peak` must hold times such as '14:00', got {text!r}. Quote them in YAML, which "
            "reads 14:00 as the number 840."
        )
    return int(match[1]) * 60 + int(match[2])


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return timezone.utc
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, IsADirectoryError, TypeError) as err:
        raise ValueError(
            f"`peak` must name a time zone such as 'UTC' or 'Europe/Berlin', got {name!r}. If it "
            "is one, this machine does not know it: `pip install tzdata`."
        ) from err
