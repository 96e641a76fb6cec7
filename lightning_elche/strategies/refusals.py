"""What cannot work when ranks take different numbers of steps, refused before it can hang."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    LearningRateFinder,
    SpikeDetection,
    StochasticWeightAveraging,
)
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torchmetrics import Metric

from lightning_elche.loops.lightning_names import averages_weights
from lightning_elche.loops.run_config import RunConfig, check_left_out

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer

__all__ = ["clip_gradients", "reason_not_to_skip", "refuse_for_ddp", "refuse_unsupported"]

NOT_FOR_DDP = ("outer_optimizer", "compression", "optimizer_state_every")

REFUSED_CALLBACKS: dict[type, str] = {
    BatchSizeFinder: "Find the batch size on one device first.",
    LearningRateFinder: "Find the learning rate on one device first.",
    SpikeDetection: "Remove it.",
}


def refuse_for_ddp(config: RunConfig) -> None:
    """Check that no option is set that DDP, which averages gradients, has no use for.

    Raises:
        ValueError: Naming the option.
    """
    why = '`policy="sync"`, which averages gradients and no parameters'
    fix = 'Remove it, or set `policy="cadence"`.'
    check_left_out(config, NOT_FOR_DDP, why=why, fix=fix)


def refuse_unsupported(trainer: Trainer, module: LightningModule, config: RunConfig) -> None:
    """Check that nothing needs all ranks at every step.

    Raises:
        ValueError: Naming what does, and what to do instead.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # set by a connector
        _refuse(callback, module, config)
    for name, child in module.named_modules():
        if isinstance(child, torch.nn.SyncBatchNorm):
            raise ValueError(
                f"`{name or type(module).__name__}` must not be SyncBatchNorm, which needs all "
                "ranks in every forward pass. Use BatchNorm: its statistics are averaged with the "
                "parameters. Set `sync_batchnorm=False` in the Trainer."
            )
        if isinstance(child, Metric) and child.dist_sync_on_step:
            raise ValueError(
                f"`{name}` must be a metric with `dist_sync_on_step=False`, got True. Its value "
                "over all ranks is available at the end of the epoch."
            )


def reason_not_to_skip(module: LightningModule, *, is_lockstep: bool) -> str:
    """Return why a batch cannot be skipped on one rank; nothing if it can.

    Args:
        module: What is trained.
        is_lockstep: Whether other ranks wait for the gradients of this one.
    """
    if is_lockstep:
        return 'with `policy="sync"` the other ranks would wait for the gradients'
    if not module.automatic_optimization:
        return "with manual optimization only `training_step` knows what it has done already"
    return ""


def _refuse(callback: Callback, module: LightningModule, config: RunConfig) -> None:
    for refused, fix in REFUSED_CALLBACKS.items():
        if isinstance(callback, refused):
            raise ValueError(
                f"`callbacks` must not contain {type(callback).__name__} with ElCheStrategy: it "
                f"needs all ranks at every step. {fix}"
            )
    if isinstance(callback, StochasticWeightAveraging) and any(
        isinstance(child, BatchNorm) for child in module.modules()
    ):
        raise ValueError(
            "`callbacks` must not contain StochasticWeightAveraging with ElCheStrategy and a "
            "model that has BatchNorm: it counts the batches of one rank to recompute the "
            "statistics. Use `WeightAveraging`, or another normalisation."
        )
    if averages_weights(callback) and (config.exchanges_in_background or config.group == "node"):
        raise ValueError(
            f'`callbacks` must not contain {type(callback).__name__} with `backend="cpu"` or '
            '`group="node"`, where ranks seldom have equal parameters. Use `backend="device"` and '
            '`group="world"`.'
        )


def clip_gradients(trainer: Trainer, max_norm: float) -> None:
    """Let the Trainer clip gradients to `max_norm`.

    Raises:
        ValueError: If it clips already, or cannot since the module optimizes by itself.
    """
    if trainer.gradient_clip_val not in (None, max_norm):
        raise ValueError(
            "`max_grad_norm` must not be set together with `gradient_clip_val` of the Trainer, got "
            f"{max_norm} and {trainer.gradient_clip_val}. Remove one of them."
        )
    if not trainer.lightning_module.automatic_optimization:
        raise ValueError(
            f"`max_grad_norm` must be None with manual optimization, got {max_norm}. Call "
            "`self.clip_gradients` in `training_step`."
        )
    trainer.gradient_clip_val = max_norm
