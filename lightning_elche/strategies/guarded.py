"""A DDP strategy without gradient synchronisation, whose collectives need aligned ranks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from typing_extensions import override

from lightning_elche.distributed.collectives import is_about_peers
from lightning_elche.exceptions import PeerLost
from lightning_elche.loops.alignment import Alignment

if TYPE_CHECKING:
    import torch.distributed as dist

__all__ = ["GuardedStrategy"]

T = TypeVar("T")


class GuardedStrategy(DDPStrategy):
    """Launches ranks as DDP does, and lets their collectives run only where ranks are aligned.

    A single rank gets no launcher and no process group.

    Args:
        misaligned: What a collective inside a training step does, see `Alignment`.
        **options: As of `DDPStrategy`.
    """

    def __init__(
        self,
        *,
        misaligned: Literal["raise", "local"],
        **options: Any,  # noqa: ANN401  # `ElCheStrategy` spells them out
    ) -> None:
        super().__init__(**options)
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
            with self._explaining("Strategy.barrier"):
                super().barrier(*args, **kwargs)

    @override
    def broadcast(self, obj: T, src: int = 0) -> T:
        if not self._alignment.allows("Strategy.broadcast"):
            return obj
        with self._explaining("Strategy.broadcast"):
            return super().broadcast(obj, src)

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
        with self._explaining("Strategy.reduce"):
            return super().reduce(tensor, group, reduce_op)

    @override
    def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:
        if not self._alignment.allows("Strategy.reduce_boolean_decision"):
            return decision
        with self._explaining("Strategy.reduce_boolean_decision"):
            return super().reduce_boolean_decision(decision, all)

    @override
    def all_gather(
        self, tensor: Tensor, group: Any | None = None, sync_grads: bool = False
    ) -> Tensor:
        if not self._alignment.allows("Strategy.all_gather", has_local_answer=True):
            return tensor.unsqueeze(0)
        with self._explaining("Strategy.all_gather"):
            return super().all_gather(tensor, group, sync_grads)

    @contextmanager
    def _explaining(self, call: str) -> Iterator[None]:
        """Raise what the backend says of a peer that is gone as what it means."""
        try:
            yield
        except RuntimeError as err:
            if is_about_peers(err):
                raise self._explained(err, call) from err
            raise

    def _explained(self, err: RuntimeError, call: str) -> RuntimeError:
        return PeerLost((), f"A peer was lost in `{call}`: {err}")
