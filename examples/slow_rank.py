"""Makes one rank slower than it is, so that one machine shows what unequal devices do."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback
from typing_extensions import override

if TYPE_CHECKING:
    import torch
    from lightning.pytorch import LightningModule, Trainer


class SlowDown(Callback):
    """Lets one rank take `factor` times as long for each training batch, by sleeping within it.

    It sleeps before the optimizer steps, so that a timeline shows the time as computing, and adds
    what the last batch took after that.

    Args:
        rank: The global rank to slow down.
        factor: How many times as long its batches take; 1 changes nothing.
    """

    def __init__(self, rank: int = 1, factor: float = 4.0) -> None:
        if not factor >= 1.0:
            raise ValueError(f"`factor` must be >= 1, got {factor}. It says how much slower.")
        self.rank = rank
        self.factor = factor
        self._begun = self._rest_s = 0.0
        self._overslept_s = 0.0

    @override
    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._begun = time.perf_counter()

    @override
    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        if trainer.global_rank == self.rank:
            self.stretch(time.perf_counter() - self._begun + self._rest_s)
        self._begun, self._rest_s = time.perf_counter(), 0.0

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._rest_s += time.perf_counter() - self._begun

    def stretch(self, compute_s: float) -> None:
        """Sleep so that a batch of `compute_s` seconds takes `factor` times as long.

        An operating system wakes a sleeper late, so that the next sleep is shorter by as much.
        """
        due_s = (self.factor - 1.0) * compute_s - self._overslept_s
        begun = time.perf_counter()
        if due_s > 0.0:
            time.sleep(due_s)
        self._overslept_s = time.perf_counter() - begun - due_s
