"""What happens in a run, told to whoever wants to know."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass

__all__ = ["ALERTS", "ALIASES", "EVERYTHING", "EventRouter", "RouterCounts", "alert_digest"]

log = logging.getLogger(__name__)

Subscriber = Callable[[str, "dict[str, object]"], None]

EVERYTHING = "*"
ALERTS = frozenset({"alert", "threshold"})
# Other names of the same events; who publishes and who subscribes may use either.
ALIASES = {
    "checkpoint": "checkpoint_saved",
    "TRAINING_COMPLETED": "stopped",
    "EVALUATION_COMPLETED": "validation_end",
    "SELFPLAY_COMPLETE": "epoch_end",
    "SELFPLAY_RATE_CHANGED": "share",
    "PLATEAU_DETECTED": "gate",
    "MODEL_PROMOTED": "checkpoint_saved",
    "HYPERPARAMETER_UPDATED": "anchor",
    "NEW_GAMES_AVAILABLE": "chunk",
}
# What differs between two alerts of one kind from two ranks, or at two times.
NOT_COMPARED = frozenset({"at", "host", "pid", "rank", "t_ns", "time"})
TTL_S = 30.0
MOST_KEYS = 2000


@dataclass(kw_only=True)
class RouterCounts:
    """What became of the events.

    Attributes:
        published: Events that were published, duplicates included.
        duplicates: Alerts that were not delivered, since they had just been.
        delivered: Calls of subscribers that returned.
        failed: Calls of subscribers that raised.
    """

    published: int = 0
    duplicates: int = 0
    delivered: int = 0
    failed: int = 0


class EventRouter:
    """Delivers events to subscribers, one event after another, in the order they were published.

    What a subscriber publishes is delivered once all have had the present event. A subscriber that
    raises is counted and told once; the others get the event all the same. An alert that repeats
    one of the last 30 seconds is not delivered.

    Args:
        clock: Monotonic seconds.
        claim: Returns whether this rank is the first to tell of an alert, by its digest.

    Example:
        >>> router = EventRouter()
        >>> forget = router.subscribe("anchor", lambda kind, data: print(kind, data))
        >>> router.publish("anchor", old=8, new=12)
        anchor {'old': 8, 'new': 12}
        >>> forget()
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        claim: Callable[[str], bool] | None = None,
    ) -> None:
        self._clock = clock
        self._claim = claim
        self._lock = threading.RLock()  # a signal handler may publish as well
        self._subscribers: list[tuple[str, Subscriber]] = []
        self._queue: deque[tuple[str, dict[str, object]]] = deque()
        self._is_delivering = False
        self._told: OrderedDict[str, float] = OrderedDict()  # digest to when, oldest first
        self._complained: set[int] = set()
        self._counts = RouterCounts()

    def counts(self) -> dict[str, int]:
        """Return what became of the events so far, as of `RouterCounts`."""
        with self._lock:
            return asdict(self._counts)

    def subscribe(self, kind: str, fn: Subscriber) -> Callable[[], None]:
        """Call `fn(kind, data)` for each event of a kind, and return what ends this.

        Args:
            kind: Of events, "*" for all.
            fn: Called in the thread that published, or in one that is already delivering.
        """
        entry = (ALIASES.get(kind, kind), fn)
        with self._lock:
            self._subscribers.append(entry)

        def forget() -> None:
            with self._lock:
                if entry in self._subscribers:
                    self._subscribers.remove(entry)

        return forget

    def publish(self, kind: str, /, **data: object) -> None:
        """Deliver an event; returns at once where another thread is delivering, which takes it."""
        self.receive(kind, data)

    def receive(self, kind: str, data: dict[str, object]) -> None:
        """Deliver an event whose particulars are in a dict."""
        kind = ALIASES.get(kind, kind)
        is_repeated = kind in ALERTS and self._is_repeated(alert_digest(kind, data))
        with self._lock:
            self._counts.published += 1
            if is_repeated:
                self._counts.duplicates += 1
                return
            self._queue.append((kind, data))
            if self._is_delivering:
                return
            self._is_delivering = True
        self._drain()

    def _drain(self) -> None:
        while True:
            with self._lock:
                if not self._queue:
                    self._is_delivering = False
                    return
                kind, data = self._queue.popleft()
                wanting = [fn for wanted, fn in self._subscribers if wanted in (kind, EVERYTHING)]
            try:
                for fn in wanting:
                    self._call(fn, kind, data)
            except BaseException:  # an interrupt; what is queued waits for the next event
                self._is_delivering = False
                raise

    def _call(self, fn: Subscriber, kind: str, data: dict[str, object]) -> None:
        try:
            fn(kind, data)
        except Exception:  # it belongs to somebody else, and must not end the run
            self._counts.failed += 1
            if id(fn) not in self._complained:
                self._complained.add(id(fn))
                log.exception("A subscriber to events raised at %r. Told once.", kind)
        else:
            self._counts.delivered += 1

    def _is_repeated(self, digest: str) -> bool:
        """Return whether an alert was told lately, here or by another rank, and remember it."""
        now = self._clock()
        with self._lock:
            while self._told and next(iter(self._told.values())) <= now - TTL_S:
                self._told.popitem(last=False)
            if digest in self._told:
                return True
            self._told[digest] = now
            if len(self._told) > MOST_KEYS:
                self._told.popitem(last=False)
        return self._claim is not None and not self._claim(digest)


def alert_digest(kind: str, data: dict[str, object]) -> str:
    """Return the SHA-256 of an alert, the same for each rank and time that it comes from."""
    compared = {key: value for key, value in data.items() if key not in NOT_COMPARED}
    text = json.dumps([kind, compared], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
