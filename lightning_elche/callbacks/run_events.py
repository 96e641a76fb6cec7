"""Tells what happened to a run outside of its normal course: who subscribes hears of it, too."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable

__all__ = ["Subscriber", "emit", "subscribe"]

log = logging.getLogger("lightning_elche.events")

Subscriber = Callable[[str, "dict[str, object]"], None]
_subscribers: tuple[Subscriber, ...] = ()
_changing = threading.Lock()


def emit(kind: str, /, **data: object) -> None:
    """Log an event at level INFO as a line of JSON, and tell the subscribers in this process.

    Args:
        kind: What happened, such as "rollback".
        **data: The particulars; JSON-serialisable.
    """
    log.info("%s", json.dumps({"event": kind, **data}))
    for subscriber in _subscribers:
        _tell(subscriber, kind, data)


def subscribe(subscriber: Subscriber) -> Callable[[], None]:
    """Call `subscriber(kind, data)` at each event of this process from now on, in its thread.

    Args:
        subscriber: Must be quick and thread-safe; what it raises is logged.

    Returns:
        A function that ends it; calling that again does nothing.
    """
    global _subscribers
    with _changing:
        _subscribers = (*_subscribers, subscriber)

    def unsubscribe() -> None:
        global _subscribers
        with _changing:
            _subscribers = tuple(other for other in _subscribers if other is not subscriber)

    return unsubscribe


def _tell(subscriber: Subscriber, kind: str, data: dict[str, object]) -> None:
    try:
        subscriber(kind, data)
    except Exception:  # whoever emits is not to fail for it
        log.exception("A subscriber failed on the event %r.", kind)
