"""Trains on several losses at once without letting them work against each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from lightning.pytorch import Callback
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from typing_extensions import override

from lightning_elche.callbacks.idle_hooks import leave_out_idle_hooks
from lightning_elche.callbacks.pcgrad_losses import TaskLosses, losses_in
from lightning_elche.callbacks.pcgrad_meter import PCGradMeter
from lightning_elche.callbacks.pcgrad_options import (
    PCGradOptions,
    check_module,
    check_started,
    check_trainer,
)
from lightning_elche.callbacks.pcgrad_surgeon import Surgeon
from lightning_elche.callbacks.run_events import emit
from lightning_elche.callbacks.step_wrapping import WrappedMethod

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

__all__ = ["PCGrad"]


class PCGrad(Callback):
    """Removes the conflict between the gradients of several losses, and logs how often it occurs.

    `training_step` returns a list or a mapping of scalar losses, or a mapping that has them as
    "losses". Lightning goes on to optimize, accumulate, clip and scale as ever. Where two gradients
    point away from each other, each is projected onto the normal plane of the other (PCGrad,
    arXiv 2001.06782). Costs one backward pass for each loss, and one more with "reweight".

    Args:
        source: "losses", or "microbatches": the batches of one accumulation are the tasks.
        mode: "reweight" makes the gradients by a last backward pass of the weighted losses, through
            all hooks; "direct" writes them, where ranks do not average gradients.
        scope: "shared": the parameters that two losses or more reach; the others keep their plain
            gradient. "all": one vector of all parameters.
        weighting: Returns the weight of each task from the inner products of their gradients, a
            float64 matrix on the CPU, such as a weighting of TorchJD. Default: PCGrad.
        task_weights: What each loss is multiplied by before anything else: a sequence, or by name.
        seed: Of the order in which tasks meet; the same on every rank.
        eps: Gradients shorter than this part of the longest count as zero.
        every_k: Combine gradients at every k-th optimizer step, and add them at others.
        start_step: The first optimizer step at which gradients are combined.
        conflict_warn: Log an event if more than this part of the pairs is in conflict, in the mean
            of an epoch.
        per_task: Log weight, gradient norm, share and conflicts of each task.

    Attributes:
        step: Optimizer steps of this rank so far.
        is_rewindable: Its state is that of the run, so that it goes back with the parameters.

    Raises:
        ValueError: If an option is not valid.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> from lightning_elche import PCGrad
        >>> pcgrad = PCGrad(task_weights={"seg": 1.0, "depth": 0.5}, per_task=True)
        >>> trainer = Trainer(callbacks=[pcgrad], accelerator="cpu", logger=False)
    """

    is_rewindable = True

    def __init__(
        self,
        source: Literal["losses", "microbatches"] = "losses",
        *,
        mode: Literal["reweight", "direct"] = "reweight",
        scope: Literal["shared", "all"] = "shared",
        weighting: Callable[[Tensor], Any] | None = None,
        task_weights: Sequence[float] | Mapping[str, float] | None = None,
        seed: int = 0,
        eps: float = 1e-12,
        every_k: int = 1,
        start_step: int = 0,
        conflict_warn: float = 0.75,
        per_task: bool = False,
    ) -> None:
        self._options = PCGradOptions(
            source=source,
            mode=mode,
            scope=scope,
            weighting=weighting,
            task_weights=task_weights,
            seed=seed,
            eps=eps,
            every_k=every_k,
            start_step=start_step,
            conflict_warn=conflict_warn,
            per_task=per_task,
        )
        self.step = 0
        self._micro = -1  # number of the batch within the step
        self._meter = PCGradMeter(eps=eps, per_task=per_task)
        self._surgeon = Surgeon(self._options)
        self._stash: TaskLosses | None = None
        self._wrapped: list[WrappedMethod] = []
        self._has_warned = False

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        leave_out_idle_hooks(self)
        if stage != TrainerFn.FITTING:
            return
        check_trainer(trainer, self._options, kind=PCGrad)
        check_module(pl_module)
        if self._options.source == "losses":
            self._wrapped = [
                WrappedMethod(pl_module, "training_step", self._around_step),
                WrappedMethod(pl_module, "backward", self._around_backward),
            ]

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        check_started(trainer, self._options)

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._unwrap()

    @override
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._unwrap()

    def _unwrap(self) -> None:
        for wrapped in self._wrapped:
            wrapped.restore()
        self._wrapped = []
        self._stash = None
        self._micro = -1
        self._surgeon = Surgeon(self._options)  # without the memory of the old one

    # Losses

    def _around_step(self, step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        self._stash = None
        self._micro += 1
        output = step(*args, **kwargs)
        losses = losses_in(output, self._options.task_weights)
        if losses is None:
            if output is not None and not self._has_warned:
                self._has_warned = True
                rank_zero_warn(
                    "`training_step` returned one loss: there is nothing for PCGrad to aggregate."
                )
            return output
        self._stash = losses
        return losses.output

    def _around_backward(
        self,
        backward: Callable[..., None],
        loss: Tensor,
        *args: Any,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        losses, self._stash = self._stash, None
        if losses is None or not self._options.is_due(self.step):
            self._meter.num_skipped += 1
            backward(loss, *args, **kwargs)
            return
        surgery = self._surgeon.backward(losses, loss, step=self.step, micro=self._micro)
        if surgery is None:  # of one task only
            backward(loss, *args, **kwargs)
        else:
            self._meter.add(surgery)

    # Batches of one accumulation

    @override
    def on_before_zero_grad(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        self._surgeon.forget_window()

    @override
    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._options.source != "microbatches":
            return
        if not self._options.is_due(self.step):
            self._meter.num_skipped += 1
            return
        self._surgeon.take_batch(num_tasks=trainer.accumulate_grad_batches)
        progress = trainer.fit_loop.epoch_loop.batch_progress
        is_full = progress.current.ready % trainer.accumulate_grad_batches == 0
        if is_full or progress.is_last_batch:
            self._close_window(trainer)

    def _close_window(self, trainer: Trainer) -> None:
        scale = 1.0 / trainer.accumulate_grad_batches
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if scaler is not None and self._options.per_task:
            scale *= scaler.get_scale()
        self._meter.add(self._surgeon.close_window(step=self.step, scale=torch.tensor(scale)))

    # Steps

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._surgeon.parameters = parameters_of(trainer, pl_module)

    @override
    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        if self._surgeon.has_window:  # the window's last batch returned no loss
            self._close_window(trainer)
        self.step += 1
        self._micro = -1
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by a connector
        if trainer.loggers and every > 0 and self.step % every == 0 and trainer.is_global_zero:
            metrics = self._meter.take()
            for logger in trainer.loggers:
                logger.log_metrics(metrics, step=trainer.global_step)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        fraction = self._meter.end_epoch()
        limit = self._options.conflict_warn
        if fraction is not None and fraction > limit and trainer.is_global_zero:
            epoch = trainer.current_epoch
            emit("pcgrad_conflict", epoch=epoch, conflict_fraction=fraction, limit=limit)

    @override
    def state_dict(self) -> dict[str, Any]:
        meter = self._meter
        return {"step": self.step, "epoch": [meter.epoch_sum, meter.epoch_count]}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.step = state_dict["step"]
        self._meter.epoch_sum, self._meter.epoch_count = state_dict["epoch"]


def parameters_of(trainer: Trainer, module: LightningModule) -> dict[str, Tensor]:
    """Return all parameters of the module and of the optimizers, by name."""
    named: dict[str, Tensor] = dict(module.named_parameters())
    known = set(map(id, named.values()))
    groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
    others = [p for group in groups for p in group["params"] if id(p) not in known]
    return named | {f"optimizer.{number}": other for number, other in enumerate(others)}
