"""Says when to stop starting what keeps failing, and when to try it again."""

from __future__ import annotations

import enum
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

__all__ = ["Breaker", "BreakerConfig", "BreakerRecord", "BreakerState"]

FORGIVEN_S = 1800.0  # closed for so long, one opening is forgotten


class BreakerState(enum.IntEnum):
    """Whether starts are let through."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


@dataclass(frozen=True, kw_only=True)
class BreakerConfig:
    """When a breaker opens, and how it closes again.

    Args:
        failures: Failures in a row that open it.
        recovery_s: Seconds that it is open for the first time.
        backoff: What this is multiplied by each time that it opens again.
        max_recovery_s: Longest time that it is open.
        jitter: Part of this time by which it is shortened or prolonged at random, so that those
            that wait for it do not all come back at once.
        half_open_max: Tries at once after that time; as many that succeed close it.
        half_open_timeout_s: Seconds after which a try that has not ended counts as failed.
    """

    failures: int = 5
    recovery_s: float = 300.0
    backoff: float = 2.0
    max_recovery_s: float = 3600.0
    jitter: float = 0.1
    half_open_max: int = 3
    half_open_timeout_s: float = 600.0

    def __post_init__(self) -> None:
        """Validate."""
        for name in ("failures", "half_open_max"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be >= 1, got {getattr(self, name)}.")
        for name in ("recovery_s", "half_open_timeout_s"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ValueError(f"`{name}` must be > 0 and finite, got {getattr(self, name)}.")
        if not 1.0 <= self.backoff < math.inf:
            raise ValueError(f"`backoff` must be >= 1 and finite, got {self.backoff}.")
        if not self.recovery_s <= self.max_recovery_s < math.inf:
            raise ValueError(
                f"`max_recovery_s` must be >= `recovery_s` ({self.recovery_s:g}) and finite, got "
                f"{self.max_recovery_s:g}."
            )
        if not 0.0 <= self.jitter < 1.0:
            raise ValueError(f"`jitter` must be >= 0 and < 1, got {self.jitter}.")


@dataclass(frozen=True, kw_only=True)
class BreakerRecord:
    """What a breaker remembers; JSON-able, so that processes can share it.

    Attributes:
        failures: In a row.
        opens: How often it has opened, less what is forgiven.
        opened_s: When it opened last; `None` if it is closed.
        open_for_s: Seconds from then until it is half-open.
        closed_s: Since when it is closed, less what was forgiven for.
        successes: Tries that succeeded since it is half-open.
        probes: When each try began that has not ended, by name.
    """

    failures: int = 0
    opens: int = 0
    opened_s: float | None = None
    open_for_s: float = 0.0
    closed_s: float = 0.0
    successes: int = 0
    probes: dict[str, float] = field(default_factory=dict)


class Breaker:
    """Opens after failures in a row, and lets a few tries through after a while.

    It is closed, open, then half-open. Half-open, one failure opens it again, for longer each time.
    All seconds are of one clock that only grows, the caller's.

    Args:
        config: When it opens, and for how long.
        record: What it remembers, to go on from.
        draw: Random numbers in [0, 1).

    Example:
        >>> breaker = Breaker(BreakerConfig(failures=2, recovery_s=30.0, jitter=0.0))
        >>> breaker.fail(1.0)
        >>> breaker.fail(2.0)
        >>> breaker.state(31.0).name, breaker.state(32.0).name
        ('OPEN', 'HALF_OPEN')
    """

    def __init__(
        self,
        config: BreakerConfig | None = None,
        *,
        record: BreakerRecord | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.config = config or BreakerConfig()
        self.record = record or BreakerRecord()
        self._draw = draw

    def state(self, now_s: float) -> BreakerState:
        """Return the state; tries that took too long have failed by then."""
        self._expire(now_s)
        return self._state(now_s)

    def wait_s(self, now_s: float) -> float:
        """Return the seconds until a start may be let through, 0 if one may be now.

        While all tries are under way, it is the time until the oldest of them has failed.
        """
        state, record = self.state(now_s), self.record
        if state is BreakerState.OPEN:
            assert record.opened_s is not None
            return record.opened_s + record.open_for_s - now_s
        if state is BreakerState.HALF_OPEN and len(record.probes) >= self.config.half_open_max:
            return min(record.probes.values()) + self.config.half_open_timeout_s - now_s
        return 0.0

    def begin(self, now_s: float, probe: str) -> None:
        """Take in that a start was let through; half-open, it is one of the tries.

        Args:
            now_s: When; `wait_s` is 0 then.
            probe: What it is called when it ends.
        """
        if self.state(now_s) is BreakerState.HALF_OPEN:
            self._set(probes={**self.record.probes, probe: now_s})

    def succeed(self, now_s: float, probe: str = "") -> None:
        """Take in a success. While it is open, that of a start from before changes nothing."""
        state = self.state(now_s)
        self._drop(probe)
        if state is BreakerState.CLOSED:
            self._set(failures=0)
        elif state is BreakerState.HALF_OPEN:
            self._set(successes=self.record.successes + 1)
            if self.record.successes >= self.config.half_open_max:
                self.record = BreakerRecord(opens=self.record.opens, closed_s=now_s)

    def fail(self, now_s: float, probe: str = "") -> None:
        """Take in a failure. While it is open, that of a start from before does not prolong it."""
        state = self.state(now_s)
        self._drop(probe)
        if state is BreakerState.OPEN:
            return
        self._set(failures=self.record.failures + 1)
        is_enough = self.record.failures >= self.config.failures
        if state is BreakerState.HALF_OPEN or is_enough:
            self._open(now_s)

    def drop(self, now_s: float, probe: str) -> None:
        """Take in that a start ended without telling anything."""
        self._expire(now_s)
        self._drop(probe)

    def reset(self, now_s: float = 0.0) -> None:
        """Close, and forget all failures and openings."""
        self.record = BreakerRecord(closed_s=now_s)

    def __repr__(self) -> str:
        return f"Breaker({self.record})"

    def _state(self, now_s: float) -> BreakerState:
        record = self.record
        if record.opened_s is None:
            return BreakerState.CLOSED
        is_over = now_s - record.opened_s >= record.open_for_s
        return BreakerState.HALF_OPEN if is_over else BreakerState.OPEN

    def _expire(self, now_s: float) -> None:
        """Forgive openings of long ago, and fail the tries that took too long."""
        record = self.record
        if record.opened_s is None:
            forgiven = int((now_s - record.closed_s) / FORGIVEN_S)
            if forgiven > 0:
                opens = max(0, record.opens - forgiven)
                self._set(opens=opens, closed_s=record.closed_s + forgiven * FORGIVEN_S)
            return
        late_s = [began + self.config.half_open_timeout_s for began in record.probes.values()]
        if late_s and min(late_s) <= now_s:
            self._open(min(late_s))
            self._expire(now_s)

    def _open(self, now_s: float) -> None:
        config, opens = self.config, self.record.opens + 1
        open_for_s = config.recovery_s
        for _ in range(opens - 1):
            if open_for_s >= config.max_recovery_s or config.backoff == 1.0:
                break
            open_for_s *= config.backoff
        open_for_s = min(config.max_recovery_s, open_for_s)
        open_for_s *= 1.0 + config.jitter * (2.0 * self._draw() - 1.0)
        self.record = BreakerRecord(opens=opens, opened_s=now_s, open_for_s=open_for_s)

    def _drop(self, probe: str) -> None:
        if probe in self.record.probes:
            probes = {name: s for name, s in self.record.probes.items() if name != probe}
            self._set(probes=probes)

    def _set(self, **changes: object) -> None:
        self.record = replace(self.record, **changes)  # type: ignore[arg-type]  # of the record
