"""Tells when `torch.compile` compiles, which is a part of some step otherwise."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from functools import partial

__all__ = ["CompileWatch"]


class CompileWatch:
    """Tells of each compilation in this process how long it took.

    torch has no documented way to hear of them. What it has, the same from 2.4 on, is called back
    at their begin and end; where it is missing or has changed, nothing is told.

    Args:
        tell: Called with the begin of a compilation and its duration, in nanoseconds.
        clock_ns: Monotonic nanoseconds.
    """

    def __init__(self, tell: Callable[[int, int], None], clock_ns: Callable[[], int]) -> None:
        self._tell, self._clock_ns = tell, clock_ns
        self._remove: list[Callable[[], object]] = []
        self._depth = self._began_ns = 0

    def attach(self) -> None:
        """Listen from now on; does nothing as long as nothing in this process can compile.

        Cheap enough to be called now and then: who compiles has imported the compiler, and who
        does not is spared its import, which takes seconds.
        """
        handler = getattr(sys.modules.get("torch._dynamo.callback"), "callback_handler", None)
        if self._remove or handler is None:
            return
        for when, call in (("start", self._begin), ("end", self._end)):
            register = getattr(handler, f"register_{when}_callback", None)
            remove = getattr(handler, f"remove_{when}_callback", None)
            if callable(register) and callable(remove):
                register(call)
                self._remove.append(partial(remove, call))

    def close(self) -> None:
        """Listen no longer; a second call does nothing."""
        while self._remove:
            with contextlib.suppress(ValueError):  # `torch.compiler.reset` removes them, too
                self._remove.pop()()

    def _begin(self, *_: object) -> None:
        self._depth += 1
        if self._depth == 1:
            self._began_ns = self._clock_ns()

    def _end(self, *_: object) -> None:
        if self._depth == 1:
            self._tell(self._began_ns, self._clock_ns() - self._began_ns)
        self._depth = max(0, self._depth - 1)
