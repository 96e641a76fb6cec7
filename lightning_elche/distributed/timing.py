"""How long this rank's steps take, without stopping the device for it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

import torch

__all__ = ["CudaTimer", "HostTimer", "StepTimer", "timer_for"]


class StepTimer(Protocol):
    """Sums the duration of steps since the last reset."""

    def begin(self) -> None:
        """Mark the begin of a step."""
        ...

    def end(self) -> None:
        """Mark its end."""
        ...

    def elapsed_ms(self, *, wait: bool = False) -> float:
        """Return the sum in milliseconds; with `wait`, after unfinished steps have finished."""
        ...

    def reset(self) -> None:
        """Start a new sum."""
        ...


class HostTimer:
    """Times steps on the host clock, right for devices that compute synchronously.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._begun = 0.0
        self.reset()

    def begin(self) -> None:
        """Mark the begin of a step."""
        self._begun = self._clock()

    def end(self) -> None:
        """Mark its end."""
        self._total_s += self._clock() - self._begun

    def elapsed_ms(self, *, wait: bool = False) -> float:
        """Return the sum in milliseconds."""
        del wait  # a step is over when it ends
        return self._total_s * 1000.0

    def reset(self) -> None:
        """Start a new sum."""
        self._total_s = 0.0


class CudaTimer:
    """Times steps by events on the current stream; between averaging events nothing synchronises.

    Steps that the device has not finished are not counted until it has.
    """

    def __init__(self) -> None:
        self._begun = _event()
        self.reset()

    def begin(self) -> None:
        """Mark the begin of a step."""
        self._begun = _event()
        self._begun.record()

    def end(self) -> None:
        """Mark its end."""
        ended = _event()
        ended.record()
        self._pending.append((self._begun, ended))

    def elapsed_ms(self, *, wait: bool = False) -> float:
        """Return the sum in milliseconds over the steps that the device has finished."""
        while self._pending and (wait or self._pending[0][1].query()):  # type: ignore[no-untyped-call]  # torch's stubs
            begun, ended = self._pending.popleft()
            ended.synchronize()
            self._total_ms += begun.elapsed_time(ended)
        return self._total_ms

    def reset(self) -> None:
        """Start a new sum."""
        self._total_ms = 0.0
        self._pending: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch's stubs


def timer_for(device: torch.device) -> StepTimer:
    """Return the timer that suits `device`."""
    return CudaTimer() if device.type == "cuda" else HostTimer()
