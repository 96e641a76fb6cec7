"""How much of a link a transfer may use, so that what matters more never starves."""

from __future__ import annotations

import contextlib
import math
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from lightning_elche.coordination.bandwidth.transfers import (
    Grant,
    MemoryBook,
    Transfer,
    TransferBook,
)

__all__ = ["PRIORITIES", "BandwidthBudget", "BandwidthConfig", "interval_floor_s"]

PRIORITIES = ("critical", "high", "normal", "background")
DEFAULT_MBPS = 100.0
POLL_S = 0.5


@dataclass(frozen=True, kw_only=True)
class BandwidthConfig:
    """What transfers of several priorities may take of a link.

    Args:
        link_mbps: The link of this machine, in Mbit/s; all transfers together stay below it.
            `None` if it is unknown.
        per_host: Mbit/s to other hosts, by their exact names. Others have 100, or `link_mbps`.
        factors: Part of a link that one transfer of a priority may take.
        max_concurrent: Transfers with a host at the same time.
        floor_mbps: A transfer that would get less is refused, to be tried later.
        lease_s: Seconds after which a transfer that was not ended no longer counts.
        averaging_ratio: Part of `link_mbps` that averaging parameters should take at most.
    """

    link_mbps: float | None = None
    per_host: Mapping[str, float] = field(default_factory=dict)
    factors: Mapping[str, float] = field(
        default_factory=lambda: {"critical": 1.0, "high": 0.5, "normal": 0.25, "background": 0.1}
    )
    max_concurrent: int = 3
    floor_mbps: float = 10.0
    lease_s: float = 1800.0
    averaging_ratio: float = 0.10

    def __post_init__(self) -> None:
        """Validate."""
        if set(self.factors) != set(PRIORITIES):
            raise ValueError(
                f"`factors` must have the keys {PRIORITIES}, got {tuple(self.factors)}."
            )
        if self.max_concurrent < 1:
            raise ValueError(f"`max_concurrent` must be >= 1, got {self.max_concurrent}.")
        if not self.floor_mbps >= 0.0:
            raise ValueError(f"`floor_mbps` must be >= 0, got {self.floor_mbps}.")
        if self.link_mbps is not None:
            _check_range("link_mbps", self.link_mbps, math.inf)
        _check_range("lease_s", self.lease_s, math.inf)
        _check_range("averaging_ratio", self.averaging_ratio, 1.0)
        for host, mbps in self.per_host.items():
            _check_range("per_host", mbps, math.inf, f" for {host!r}")
        for priority, factor in self.factors.items():
            _check_range("factors", factor, 1.0, f" for {priority!r}")

    def mbps_to(self, host: str) -> float:
        """Return the Mbit/s of the link to a host."""
        return self.per_host.get(host, self.link_mbps or DEFAULT_MBPS)


class BandwidthBudget:
    """Grants transfers a part of their link: what they get in sum is never more than there is.

    A grant is a limit that the transfer keeps to by itself, in `Transfer.throttle`. One that would
    get too little is refused instead, as is a further one with a host that has enough of them.

    Args:
        config: Links and limits.
        book: The grants that count. Default: those of this process.
        clock: Seconds that only grow.
        sleep: Waits for so many seconds.

    Example:
        >>> budget = BandwidthBudget(BandwidthConfig(per_host={"store": 200.0}))
        >>> with budget.transfer("store", num_bytes=1000, priority="high") as transfer:
        ...     transfer.throttle(1000)
        ...     transfer.grant.mbps
        100.0
        >>> budget.sent_bytes["high"]
        1000
    """

    def __init__(
        self,
        config: BandwidthConfig | None = None,
        *,
        book: TransferBook | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.config = config or BandwidthConfig()
        self._book = book or MemoryBook(clock)
        self._clock, self._sleep = clock, sleep
        self._lock = threading.Lock()
        self._sent_bytes = dict.fromkeys(PRIORITIES, 0)

    def __reduce__(self) -> tuple[Callable[[], BandwidthBudget], tuple[()]]:
        """Be a new one in another process, as for a launcher that sends the strategy there."""
        book = None if isinstance(self._book, MemoryBook) else self._book
        new = partial(BandwidthBudget, self.config, book=book, clock=self._clock, sleep=self._sleep)
        return new, ()

    @property
    def sent_bytes(self) -> dict[str, int]:
        """What the transfers of this process have sent, by priority; those that are over."""
        with self._lock:
            return dict(self._sent_bytes)

    def can_transfer(self, host: str, priority: str = "normal") -> bool:
        """Return whether a transfer would be granted now."""
        return isinstance(offer(self.config, self._book.grants(), host, priority), float)

    def start(self, host: str, num_bytes: int = 0, priority: str = "normal") -> Grant | str:
        """Return a grant, to be given back by `end`, or why there is none.

        Raises:
            ValueError: If there is no such priority.
        """

        def decide(grants: Sequence[Grant], now_s: float) -> Grant | str:
            mbps = offer(self.config, grants, host, priority)
            if isinstance(mbps, str):
                return mbps
            return Grant(
                id=uuid.uuid4().hex,
                host=host,
                priority=priority,
                mbps=mbps,
                num_bytes=num_bytes,
                since_s=now_s,
                until_s=now_s + self.config.lease_s,
            )

        return self._book.enter(decide)

    def end(self, grant: Grant, sent_bytes: int) -> None:
        """Give a grant back.

        Args:
            grant: It; it may have run out.
            sent_bytes: What was sent.
        """
        self._book.leave(grant.id)
        with self._lock:
            self._sent_bytes[grant.priority] += sent_bytes

    @contextlib.contextmanager
    def transfer(
        self,
        host: str,
        num_bytes: int = 0,
        priority: str = "normal",
        *,
        timeout_s: float = 0.0,
    ) -> Iterator[Transfer]:
        """Open a transfer; it ends with the block.

        Args:
            host: The other end.
            num_bytes: What is to be sent.
            priority: "critical", "high", "normal" or "background".
            timeout_s: How long to wait for a grant.

        Raises:
            TimeoutError: If there was none in that time.
            ValueError: If there is no such priority.
        """
        deadline_s = self._clock() + timeout_s
        grant = self.start(host, num_bytes, priority)
        while isinstance(grant, str):
            left_s = deadline_s - self._clock()
            if left_s <= 0.0:
                raise TimeoutError(f"A {priority} transfer with {host} was not granted: {grant}.")
            self._sleep(min(left_s, POLL_S))
            grant = self.start(host, num_bytes, priority)
        transfer = Transfer(
            grant, self._book, lease_s=self.config.lease_s, clock=self._clock, sleep=self._sleep
        )
        try:
            yield transfer
        finally:
            self.end(grant, transfer.sent_bytes)


def _check_range(name: str, value: float, high: float, place: str = "") -> None:
    if not 0.0 < value <= high:
        limit = "" if high == math.inf else f" and <= {high:g}"
        raise ValueError(f"`{name}` must be > 0{limit}, got {value}{place}.")


def offer(
    config: BandwidthConfig, grants: Sequence[Grant], host: str, priority: str
) -> float | str:
    """Return the Mbit/s that a further transfer gets, or why it gets none.

    Raises:
        ValueError: If there is no such priority.
    """
    if priority not in PRIORITIES:
        raise ValueError(f"`priority` must be one of {PRIORITIES}, got {priority!r}.")
    here = [grant.mbps for grant in grants if grant.host == host]
    if len(here) >= config.max_concurrent:
        return f"{len(here)} transfers with it are under way, as many as `max_concurrent` allows"
    link = config.mbps_to(host)
    free = link - sum(here)
    if config.link_mbps is not None:
        free = min(free, config.link_mbps - sum(grant.mbps for grant in grants))
    mbps = min(free, link * config.factors[priority])
    if mbps < config.floor_mbps or mbps <= 0.0:
        return f"it would get {max(mbps, 0.0):g} of {link:g} Mbit/s, `floor_mbps` is the least"
    return mbps


def interval_floor_s(config: BandwidthConfig, *, num_bytes: int, world_size: int) -> float:
    """Return how far averaging events must be apart to take no more than their part of the link.

    A rank sends `2 (n - 1) / n` times what it averages, as a ring of `n` does.

    Args:
        config: The link; 0 seconds if it is unknown.
        num_bytes: What is averaged, as it travels.
        world_size: Number of ranks.
    """
    if config.link_mbps is None:
        return 0.0
    bits = 8.0 * num_bytes * 2.0 * (world_size - 1) / world_size
    return bits / (1e6 * config.link_mbps * config.averaging_ratio)
