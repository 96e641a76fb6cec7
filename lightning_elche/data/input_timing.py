"""How long the training loop waits for its next batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import DataLoader

__all__ = ["InputTiming", "timed"]


class InputTiming:
    """Tells how long each `next` of a loader took.

    Args:
        clock_ns: Monotonic nanoseconds.

    Attributes:
        listeners: Each is called with begin and duration of every wait, in nanoseconds.
    """

    def __init__(self, clock_ns: Callable[[], int] = time.perf_counter_ns) -> None:
        self._clock_ns = clock_ns
        self.listeners: list[Callable[[int, int], None]] = []

    def over(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Return an iterator over the same batches that is timed."""
        return _TimedIterator(batches, self._clock_ns, self.listeners)


class _TimedIterator(Iterator[Any]):
    def __init__(
        self,
        batches: Iterator[Any],
        clock_ns: Callable[[], int],
        listeners: list[Callable[[int, int], None]],
    ) -> None:
        self._next = batches.__next__
        self._clock_ns = clock_ns
        self._listeners = listeners

    def __next__(self) -> Any:  # noqa: ANN401  # whatever the loader yields
        begun_ns = self._clock_ns()
        try:
            return self._next()
        finally:
            waited_ns = self._clock_ns() - begun_ns
            for listener in self._listeners:
                listener(begun_ns, waited_ns)


def timed(loader: object, timing: InputTiming) -> object:
    """Return a copy of `loader` whose iterators are timed, or what is no DataLoader as it is.

    The copy is of a subclass made for it, so that it stays what Lightning takes it for.
    """
    if not isinstance(loader, DataLoader):
        return loader
    kind = type(loader)

    def iterate(self: DataLoader[Any]) -> Iterator[Any]:
        return timing.over(kind.__iter__(self))

    # `__new__` alone: a DataLoader must not be set up again, and forbids to set its samplers.
    copied: DataLoader[Any] = kind.__new__(type(kind.__name__, (kind,), {"__iter__": iterate}))
    vars(copied).update(vars(loader))
    return copied
