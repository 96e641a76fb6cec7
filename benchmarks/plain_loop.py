"""The loop in which every row without Lightning trains."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor
from workload import loss_of

if TYPE_CHECKING:
    import torch
    from slow_rank import SlowDown
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class PlainLoop:
    """A training loop of PyTorch alone, with the three places where others hook into it.

    Attributes:
        module: What is trained.
        optimizer: Steps once a batch.
        batches: The batches of an epoch.
        backward: Stands for `loss.backward()`.
        after_step: Called after each step of the optimizer.
        around_epoch: Makes the context in which each epoch runs.
    """

    module: nn.Module
    optimizer: torch.optim.Optimizer
    batches: Iterable[tuple[Tensor, Tensor]]
    backward: Callable[[Tensor], object] = Tensor.backward
    after_step: Callable[[], object] = lambda: None
    around_epoch: Callable[[], AbstractContextManager[object]] = nullcontext

    def run(self, *, epochs: int, slow_down: SlowDown, after_epoch: Callable[[], object]) -> None:
        """Train, and call `after_epoch` whenever an epoch has ended."""
        for _ in range(epochs):
            with self.around_epoch():
                for batch in self.batches:
                    self._step(batch, slow_down)
            after_epoch()

    def _step(self, batch: tuple[Tensor, Tensor], slow_down: SlowDown) -> None:
        begun = time.monotonic()
        self.optimizer.zero_grad()
        self.backward(loss_of(self.module, batch))
        # Not after the step of the optimizer, within which some peers wait for each other.
        slow_down.stretch(time.monotonic() - begun)
        self.optimizer.step()
        self.after_step()
