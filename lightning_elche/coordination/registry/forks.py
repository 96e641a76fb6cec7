"""A lock that nobody holds while the process forks."""

from __future__ import annotations

import functools
import os
import threading
import weakref
from collections.abc import Callable

__all__ = ["ForkLock"]

FORK_WAIT_S = 5.0  # a thread that forks while it holds the lock itself goes on after so long

_locks: weakref.WeakSet[ForkLock] = weakref.WeakSet()
_held: list[ForkLock] = []


class ForkLock:
    """A lock that a fork waits for, so that the child finds nothing half-done.

    Args:
        in_child: Called in a forked child, where nobody holds the lock.
    """

    def __init__(self, in_child: Callable[[], None]) -> None:
        self._lock = threading.Lock()
        self._in_child = weakref.WeakMethod(in_child)
        _watch_forks()
        _locks.add(self)

    def acquire(self, *, timeout_s: float) -> bool:
        """Return whether the lock is held now."""
        return self._lock.acquire(timeout=timeout_s)

    def release(self) -> None:
        """Let go of it."""
        self._lock.release()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def begin_anew(self) -> None:
        """Be a lock of the child."""
        self._lock = threading.Lock()
        in_child = self._in_child()
        if in_child is not None:
            in_child()


@functools.cache
def _watch_forks() -> None:
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)


def _before() -> None:
    _held.extend(lock for lock in list(_locks) if lock.acquire(timeout_s=FORK_WAIT_S))


def _in_parent() -> None:
    while _held:
        _held.pop().release()


def _in_child() -> None:
    _held.clear()
    for lock in list(_locks):
        lock.begin_anew()
