"""One part of what coordinates a run: its state, its errors, and what it tells of itself."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from lightning_elche.coordination.lifecycle import Lifecycle, LifecycleStats, RunState

__all__ = ["Component"]

log = logging.getLogger(__name__)


class Component:
    """A part of a run: an object with some hooks, and a count of those that raised.

    Args:
        name: Of the part.
        part: The object. Hooks that it does not have are not called.
        clock: Monotonic seconds.

    Attributes:
        part: The object.
    """

    def __init__(self, name: str, part: object, clock: Callable[[], float]) -> None:
        self.name = name
        self.part = part
        self._lifecycle = Lifecycle(name, clock)
        self._has_complained = False

    def hook(self, name: str) -> Callable[..., Any] | None:
        """Return a method of the part, `None` if it has none of this name."""
        method: Callable[..., Any] | None = getattr(self.part, name, None)
        return method

    def start(self, *args: object) -> None:
        """Call `setup` of the part; it is RUNNING once that has succeeded."""
        self._lifecycle.start(lambda: self._call("setup", *args))

    def tell(self, name: str, *args: object) -> None:
        """Call a hook at the end of a run; what it raises is counted and logged.

        Nothing is told to a part that was never set up.
        """
        if self._lifecycle.state is RunState.INITIALIZING:
            return
        try:
            self._call(name, *args)
        except Exception as err:  # the other parts come to their end all the same
            self._lifecycle.failed(err)
            log.exception("%s failed in %s.", self.name, name)

    def close(self, *args: object) -> None:
        """Call `teardown` of the part, once; what it raises is counted and logged."""
        self._lifecycle.close(lambda: None, lambda: self.tell("teardown", *args))

    def stats(self) -> LifecycleStats:
        """Return what is known of the part."""
        return self._lifecycle.stats()

    def status(self) -> dict[str, object]:
        """Return what the part tells of itself; nothing if it cannot at present."""
        if self._lifecycle.state is RunState.INITIALIZING:
            return {}
        try:
            told: dict[str, object] = self._call("status") or {}
        except Exception as err:  # it is asked beside the training thread, in whatever state it is
            self._lifecycle.failed(err)
            if not self._has_complained:
                self._has_complained = True
                log.exception("%s cannot say how it is. Told once.", self.name)
            return {}
        self._lifecycle.done()
        return told

    def _call(self, name: str, *args: object) -> Any:  # noqa: ANN401  # whatever it returns
        method = self.hook(name)
        return None if method is None else method(*args)
