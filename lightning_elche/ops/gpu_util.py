"""How busy a GPU is, as its driver says; never a number that nobody has measured."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable

import torch

__all__ = ["GpuUtilization"]

PERIOD_S = 1.0


class GpuUtilization:
    """Asks NVML for the utilization of a device, at most once a second.

    Args:
        device: The device; 0 is reported for one that is no CUDA device.
        clock: Monotonic seconds.
        ask: Returns the utilization of a CUDA device in percent.
    """

    def __init__(
        self,
        device: torch.device,
        *,
        clock: Callable[[], float] = time.monotonic,
        ask: Callable[[torch.device], int] = torch.cuda.utilization,
    ) -> None:
        self._device = device
        self._clock = clock
        self._ask = ask
        self._percent = 0.0
        self._asked_at = -PERIOD_S
        self._source = "nvml" if device.type == "cuda" else "none"
        self.percent()

    @property
    def source(self) -> str:
        """Where the number comes from: "nvml", "none" (no GPU) or "unavailable" (no NVML)."""
        return self._source

    def percent(self) -> float:
        """Return the utilization, 0 to 100; 0 where it is unknown."""
        if self._source != "nvml":
            return 0.0
        now = self._clock()
        if now - self._asked_at >= PERIOD_S:
            self._asked_at = now
            self._refresh()
        return self._percent

    def _refresh(self) -> None:
        try:
            self._percent = float(self._ask(self._device))
        except (ModuleNotFoundError, RuntimeError) as err:
            self._source, self._percent = "unavailable", 0.0
            warnings.warn(
                f"The utilization of {self._device} is unknown, so that GATE-TRAIN-008 cannot be "
                f"judged in full: {err} Install `lightning-elche[nvml]`.",
                stacklevel=2,
            )
