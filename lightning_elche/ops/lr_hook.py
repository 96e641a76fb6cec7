"""Scales the learning rates that take effect, without touching those that schedulers know."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle

__all__ = ["StepScale"]


class StepScale:
    """Multiplies learning rates for the duration of each optimizer step.

    A rate that is lowered in the optimizer itself is undone by the next step of most schedulers.

    Args:
        optimizers: Whose steps to scale.
    """

    def __init__(self, optimizers: Iterable[torch.optim.Optimizer]) -> None:
        self._optimizers = list(optimizers)
        self._scale = 1.0
        self._rates: dict[torch.optim.Optimizer, list[Any]] = {}
        self._handles: list[RemovableHandle] = []

    @property
    def scale(self) -> float:
        """What rates are multiplied by; 1 leaves the steps alone."""
        return self._scale

    @scale.setter
    def scale(self, scale: float) -> None:
        self._scale = scale
        if scale == 1.0:
            self.close()
        elif not self._handles:
            for optimizer in self._optimizers:
                self._handles.append(optimizer.register_step_pre_hook(self._before))
                self._handles.append(optimizer.register_step_post_hook(self._after))

    def close(self) -> None:
        """Let go of the optimizers."""
        for optimizer in list(self._rates):  # a step that has failed
            self._put_back(optimizer)
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _before(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        self._put_back(optimizer)
        self._rates[optimizer] = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * self._scale

    def _after(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        self._put_back(optimizer)

    def _put_back(self, optimizer: torch.optim.Optimizer) -> None:
        rates = self._rates.pop(optimizer, ())
        for group, rate in zip(optimizer.param_groups, rates, strict=False):  # one may be new
            group["lr"] = rate
