"""How long runs take, by what earlier ones took."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

__all__ = [
    "DEFAULT_DURATIONS_S",
    "Duration",
    "DurationEstimate",
    "DurationFile",
    "DurationModel",
    "DurationStore",
    "Eta",
    "eta",
]

HOUR_S = 3600.0
DAY_S = 24.0 * HOUR_S
ENOUGH = 3
TRUSTED_PROGRESS = 0.10

DEFAULT_DURATIONS_S: Mapping[str, float] = MappingProxyType(
    {
        "worker": HOUR_S,
        "train": 4.0 * HOUR_S,
        "sweep": 8.0 * HOUR_S,
        "pipeline": 6.0 * HOUR_S,
        "eval": HOUR_S,
        "export": 300.0,
    }
)


@dataclass(frozen=True, kw_only=True)
class Duration:
    """How long something took.

    Attributes:
        kind: What it was, such as "train".
        fingerprint: Equal for what should take equally long.
        host: Where.
        seconds: How long.
        at: When it was over, in seconds since 1970.
        is_success: Whether it came to its proper end.
    """

    kind: str
    fingerprint: str
    host: str
    seconds: float
    at: float
    is_success: bool = True


class DurationStore(Protocol):
    """Keeps durations."""

    def add_duration(self, duration: Duration) -> None:
        """Take in one."""
        ...

    def durations(self, kind: str, *, since: float) -> Iterable[Duration]:
        """Return those of a kind that were over at or after a moment."""
        ...


class DurationFile:
    """A file with a JSON line for each duration; lines of others, or cut off, are passed over.

    Args:
        path: The file; it need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def add_duration(self, duration: Duration) -> None:
        """Append one."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(duration)) + "\n")

    def durations(self, kind: str, *, since: float) -> list[Duration]:
        """Return those of a kind that were over at or after a moment."""
        if not self._path.exists():
            return []
        with self._path.open(encoding="utf-8", errors="replace") as file:
            found = (_read(line) for line in file)
            return [one for one in found if one and one.kind == kind and one.at >= since]


@dataclass(frozen=True, kw_only=True)
class DurationEstimate:
    """How long something will take.

    Attributes:
        median_s: As long as not.
        p90_s: In nine of ten cases not longer.
        source: What it is based on: "host", "fingerprint", "kind" or "default".
        count: How many earlier ones.
    """

    median_s: float
    p90_s: float
    source: str
    count: int


class DurationModel:
    """Estimates from the most similar successes of which there are three or more.

    Those of the same fingerprint on the same host in seven days, on any host, those of the kind in
    thirty days, and a default at last.

    Args:
        store: The earlier durations.
        defaults_s: By kind, instead of those built in.
        now: Returns the time, in seconds since 1970.
    """

    def __init__(
        self,
        store: DurationStore,
        *,
        defaults_s: Mapping[str, float] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._now = store, now
        self._defaults_s = {**DEFAULT_DURATIONS_S, **(defaults_s or {})}

    def record(self, duration: Duration) -> None:
        """Take in how long something took."""
        self._store.add_duration(duration)

    def estimate(self, kind: str, *, fingerprint: str = "", host: str = "") -> DurationEstimate:
        """Return how long something will take.

        Raises:
            ValueError: If nothing at all is known of its kind.
        """
        now = self._now()
        month = self._store.durations(kind, since=now - 30.0 * DAY_S)
        known = [one for one in month if one.is_success]
        week = [one for one in known if one.at >= now - 7.0 * DAY_S]
        alike = [one for one in week if one.fingerprint == fingerprint]
        here = [one for one in alike if one.host == host]
        for source, found in (("host", here), ("fingerprint", alike), ("kind", known)):
            if len(found) >= ENOUGH:
                seconds = [one.seconds for one in found]
                p90_s = statistics.quantiles(seconds, n=10, method="inclusive")[-1]
                return DurationEstimate(
                    median_s=statistics.median(seconds),
                    p90_s=p90_s,
                    source=source,
                    count=len(found),
                )
        if kind not in self._defaults_s:
            raise ValueError(
                f"`kind` must be one of {tuple(self._defaults_s)} as long as no duration was "
                f"recorded, got {kind!r}. Add it to `defaults_s`."
            )
        default = self._defaults_s[kind]
        return DurationEstimate(median_s=default, p90_s=default, source="default", count=0)


@dataclass(frozen=True, kw_only=True)
class Eta:
    """How long a run will still take.

    Attributes:
        median_s: As long as not.
        p90_s: In nine of ten cases not longer.
    """

    median_s: float
    p90_s: float


def eta(*, elapsed_s: float, progress: float, estimate: DurationEstimate) -> Eta:
    """Return how long a run will still take.

    Its own speed counts the more the further it is, and alone from a tenth on; before, it is what
    earlier runs took that counts.

    Args:
        elapsed_s: For how long it has run.
        progress: Which part of it is done, 0 to 1.
        estimate: How long it takes in all, by earlier runs.
    """
    trust = min(1.0, progress / TRUSTED_PROGRESS)
    live_s = elapsed_s * (1.0 - progress) / progress if progress > 0.0 else 0.0
    spread = estimate.p90_s / estimate.median_s
    median_s, p90_s = (max(0.0, s - elapsed_s) for s in (estimate.median_s, estimate.p90_s))
    return Eta(
        median_s=trust * live_s + (1.0 - trust) * median_s,
        p90_s=trust * live_s * spread + (1.0 - trust) * p90_s,
    )


def _read(line: str) -> Duration | None:
    try:
        duration = Duration(**json.loads(line))
        is_sound = duration.seconds >= 0.0 and duration.at >= 0.0
    except (ValueError, TypeError, RecursionError):
        return None
    return duration if is_sound else None
