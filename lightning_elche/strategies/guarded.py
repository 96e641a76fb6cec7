"""A DDP strategy without gradient synchronisation, whose collectives need aligned ranks."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from typing_extensions import override

from lightning_elche.loops.alignment import Alignment

if TYPE_CHECKING:
    import torch.distributed as dist
    from lightning.fabric.plugins import ClusterEnvironment
    from lightning.pytorch.accelerators import Accelerator
    from lightning.pytorch.plugins import CheckpointIO, Precision

__all__ = ["GuardedStrategy"]

T = TypeVar("T")


class GuardedStrategy(DDPStrategy):
    """Launches ranks as DDP does, and lets their collectives run only where ranks are aligned.

    A single rank gets no launcher and no process group.

    Args:
        misaligned: What a collective inside a training step does, see `Alignment`.
        process_group_backend: See `ElCheStrategy`, also for what follows.
        timeout: Longest wait for a peer.
        start_method: How ranks are started.
        accelerator: Set by the Trainer.
        parallel_devices: Set by the Trainer.
        cluster_environment: Set by the Trainer.
        checkpoint_io: How checkpoints are read and written.
        precision_plugin: Set by the Trainer.
    """

    def __init__(
        self,
        *,
        misaligned: Literal["raise", "local"],
        process_group_backend: str | None,
        timeout: timedelta,
        start_method: Literal["popen", "spawn", "fork", "forkserver"],
        accelerator: Accelerator | None,
        parallel_devices: list[torch.device] | None,
        cluster_environment: ClusterEnvironment | None,
        checkpoint_io: CheckpointIO | None,
        precision_plugin: Precision | None,
    ) -> None:
        super().__init__(
            accelerator=accelerator,
            parallel_devices=parallel_devices,
            cluster_environment=cluster_environment,
            checkpoint_io=checkpoint_io,
            precision_plugin=precision_plugin,
            process_group_backend=process_group_backend,
            timeout=timeout,
            start_method=start_method,
        )
        self._alignment = Alignment(misaligned)

    @property
    def _is_alone(self) -> bool:
        return self.num_nodes * self.num_processes == 1

    @override
    def _configure_launcher(self) -> None:
        if not self._is_alone:
            super()._configure_launcher()

    @override
    def setup_distributed(self) -> None:
        if self._is_alone:
            self.set_world_ranks()
        else:
            super().setup_distributed()

    @override
    def barrier(self, *args: Any, **kwargs: Any) -> None:
        if self._alignment.allows("Strategy.barrier"):
            super().barrier(*args, **kwargs)

    @override
    def broadcast(self, obj: T, src: int = 0) -> T:
        return super().broadcast(obj, src) if self._alignment.allows("Strategy.broadcast") else obj

    @override
    def reduce(
        self,
        tensor: Tensor,
        group: Any | None = None,
        reduce_op: dist.ReduceOp | str | None = "mean",
    ) -> Tensor:
        if not self._alignment.allows("Strategy.reduce", has_local_answer=True):
            return tensor
        is_mean = isinstance(reduce_op, str) and reduce_op.lower() in ("mean", "avg")
        if is_mean and not tensor.is_floating_point():
            # A mean of counts is fractional where ranks differ; the stock reduction floors it
            # (https://github.com/Lightning-AI/pytorch-lightning/issues/21859).
            tensor = tensor.double()
        return super().reduce(tensor, group, reduce_op)

    @override
    def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:
        if not self._alignment.allows("Strategy.reduce_boolean_decision"):
            return decision
        return super().reduce_boolean_decision(decision, all)

    @override
    def all_gather(
        self, tensor: Tensor, group: Any | None = None, sync_grads: bool = False
    ) -> Tensor:
        if not self._alignment.allows("Strategy.all_gather", has_local_answer=True):
            return tensor.unsqueeze(0)
        return super().all_gather(tensor, group, sync_grads)
