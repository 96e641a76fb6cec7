"""The options of `PCGrad`, checked by themselves and against a Trainer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, SingleDeviceStrategy
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import LBFGS

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.strategies import Strategy

__all__ = ["PCGradOptions", "check_module", "check_started", "check_trainer"]

CHOICES = {
    "source": ("losses", "microbatches"),
    "mode": ("reweight", "direct"),
    "scope": ("shared", "all"),
}
LEAST = {"every_k": 1, "start_step": 0}


@dataclass(frozen=True, kw_only=True)
class PCGradOptions:
    """As of `PCGrad`."""

    source: Literal["losses", "microbatches"]
    mode: Literal["reweight", "direct"]
    scope: Literal["shared", "all"]
    weighting: Callable[[Tensor], Any] | None
    task_weights: Sequence[float] | Mapping[str, float] | None
    seed: int
    eps: float
    every_k: int
    start_step: int
    conflict_warn: float
    per_task: bool

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"`{name}` must be one of {choices}, got {getattr(self, name)!r}.")
        for name, least in LEAST.items():
            if getattr(self, name) < least:
                raise ValueError(f"`{name}` must be >= {least}, got {getattr(self, name)}.")
        if not -(2**63) <= self.seed < 2**63:
            raise ValueError(f"`seed` must fit into 64 bits, got {self.seed}.")
        if not 0.0 <= self.eps < 1.0:
            raise ValueError(f"`eps` must be in [0, 1), got {self.eps}.")
        if not 0.0 <= self.conflict_warn <= 1.0:
            raise ValueError(f"`conflict_warn` must be in [0, 1], got {self.conflict_warn}.")
        if not (self.weighting is None or callable(self.weighting)):
            raise ValueError(
                "`weighting` must be a callable, such as one of `torchjd.aggregation`, got "
                f"{self.weighting!r}."
            )
        self._check_task_weights()

    def _check_task_weights(self) -> None:
        weights = self.task_weights
        if weights is None:
            return
        if self.source == "microbatches":
            raise ValueError(
                '`task_weights` must be None with `source="microbatches"`, whose batches have no '
                f"names, got {weights}."
            )
        numbers = weights.values() if isinstance(weights, Mapping) else weights
        if not all(math.isfinite(number) and number > 0.0 for number in numbers):
            raise ValueError(f"`task_weights` must be finite and > 0, got {weights}.")

    @property
    def writes_gradients(self) -> bool:
        """Whether `.grad` is written instead of made by a backward pass."""
        return self.mode == "direct" or self.source == "microbatches"

    def is_due(self, step: int) -> bool:
        """Whether gradients are combined at an optimizer step, rather than added."""
        return step >= self.start_step and (step - self.start_step) % self.every_k == 0


def check_trainer(trainer: Trainer, options: PCGradOptions, *, kind: type) -> None:
    """Refuse a Trainer under which gradients would be wrong.

    Args:
        trainer: Is being set up.
        options: Of the callback.
        kind: Of which there must be one callback.

    Raises:
        ValueError: Naming what is in the way.
    """
    strategy = trainer.strategy
    is_known = isinstance(strategy, (SingleDeviceStrategy, DDPStrategy))
    if not is_known or isinstance(strategy, DeepSpeedStrategy):
        raise ValueError(
            "`strategy` must leave each rank its whole gradients, as one device, DDP and "
            f"ElCheStrategy do, got {type(strategy).__name__}."
        )
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]  # set by a connector
    num_same = sum(isinstance(callback, kind) for callback in callbacks)
    if num_same > 1:
        raise ValueError(f"`callbacks` must contain one {kind.__name__}, got {num_same}.")
    schedules = any(isinstance(callback, GradientAccumulationScheduler) for callback in callbacks)
    if options.source == "microbatches" and trainer.accumulate_grad_batches < 2 and not schedules:
        raise ValueError(
            "`accumulate_grad_batches` of the Trainer must be at least 2 with "
            f'`source="microbatches"`, got {trainer.accumulate_grad_batches}.'
        )


def has_local_gradients(strategy: Strategy) -> bool:
    """Whether ranks do not exchange gradients, so that each may write its own."""
    if isinstance(strategy, SingleDeviceStrategy):
        return True
    return bool(getattr(strategy, "has_local_gradients", False))


def check_module(module: LightningModule) -> None:
    """Refuse a module that has no losses for us to take.

    Raises:
        ValueError: If it optimizes by itself.
    """
    if not module.automatic_optimization:
        raise ValueError(
            "`automatic_optimization` of the module must be True with PCGrad, got False. In manual "
            "optimization call `lightning_elche.ops.pcgrad` on gradients of your own."
        )


def check_started(trainer: Trainer, options: PCGradOptions) -> None:
    """Refuse what is known only once the strategy is set up.

    Raises:
        ValueError: Naming it.
    """
    strategy = trainer.strategy
    if options.writes_gradients and not has_local_gradients(strategy):
        name, other = ("mode", "reweight") if options.mode == "direct" else ("source", "losses")
        raise ValueError(
            f'`{name}` must be "{other}" with {type(strategy).__name__} that averages gradients, '
            f'got "{getattr(options, name)}": gradients written by hand would differ between '
            "ranks. Or use ElCheStrategy with another `policy`."
        )
    model = strategy.model
    if isinstance(model, DistributedDataParallel) and model.static_graph:
        raise ValueError(
            "`static_graph` of DDP must be False with PCGrad, got True: ranks would drift apart."
        )
    for optimizer in trainer.optimizers:
        if isinstance(optimizer, LBFGS):
            raise ValueError(
                "`optimizer` must make one backward pass a step with PCGrad, got LBFGS."
            )
