"""Compares the replicas of a run where they must be equal."""

from __future__ import annotations

import itertools
import uuid
from typing import TYPE_CHECKING

from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import rank_zero_warn

from lightning_elche.callbacks.run_events import emit
from lightning_elche.distributed.collectives import GroupCollectives
from lightning_elche.distributed.control_store import ControlStore, default_store
from lightning_elche.distributed.replica_agreement import ReplicaAgreement
from lightning_elche.ops.rml_torch import named_lanes
from lightning_elche.partition.replicas import ReplicaConfig
from lightning_elche.partition.rml import sum_lanes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lightning.pytorch import Trainer
    from torch import Tensor

    from lightning_elche.callbacks.partition_replay import PartitionReplay
    from lightning_elche.control.events import AveragingEvent
    from lightning_elche.partition.errors import ReplicaDivergence
    from lightning_elche.partition.fnv import Lanes
    from lightning_elche.partition.replay_lanes import NamedLanes

__all__ = ["ReplicaCheck"]

WAIT_S = 600.0  # for the lanes of a peer, which takes them at the same moment


class ReplicaCheck:
    """Compares the replicas of one `fit`; every rank has one, and makes the same calls.

    Without several ranks that should hold the same it does nothing.

    Args:
        trainer: The Trainer.
        config: When, and what to do.
        replay: Knows which tensors are compared.
    """

    def __init__(self, trainer: Trainer, config: ReplicaConfig, replay: PartitionReplay) -> None:
        self._trainer = trainer
        self._config = config
        self._replay = replay
        self._channel: GroupCollectives | None = None
        self._agreement: ReplicaAgreement | None = None
        self._num_checkpoints = itertools.count()
        self._has_warned = False

    def open(self) -> None:
        """Open groups of processes; every rank calls this at the same point."""
        trainer, strategy = self._trainer, self._trainer.strategy
        if trainer.world_size == 1 or not isinstance(strategy, DDPStrategy):
            return
        if self._config.check_every == 0:
            return
        store = ControlStore(default_store(), strategy.broadcast(uuid.uuid4().hex))
        self._channel = GroupCollectives(timeout_s=WAIT_S, store=store)
        self._agreement = ReplicaAgreement(self._config, self._channel)

    def close(self) -> None:
        """Close the groups."""
        channel, self._channel, self._agreement = self._channel, None, None
        if channel is not None:
            channel.close()

    def after_average(self, event: AveragingEvent) -> Sequence[NamedLanes] | None:
        """Compare what was averaged, if that is due.

        Args:
            event: At which all ranks are aligned.

        Returns:
            The lanes of the state, if they were taken of all that replay wants.

        Raises:
            ReplicaDivergence: The same one on every rank.
        """
        if not event.exchanged_bytes:  # nobody had anything to contribute
            return None
        # Optimizer states of different layouts stay as each rank has them.
        is_of_all = len({report.optimizer_layout for report in event.reports}) == 1
        tensors = self._replay.tensors()
        wanted = {
            name: tensor
            for name, tensor in tensors.items()
            if is_of_all or name.startswith("model/")
        }
        taken = self._check(wanted, event.index, step=event.global_step, sync_index=event.index)
        return taken if len(wanted) == len(tensors) else None

    def before_checkpoint(self, *, step: int) -> None:
        """Compare the replicas of another strategy than ElCheStrategy, if that is due.

        Args:
            step: Of the state.

        Raises:
            ReplicaDivergence: The same one on every rank.
        """
        # DDP leaves buffers such as the statistics of BatchNorm to each rank.
        module = self._trainer.lightning_module
        names = dict(module.named_parameters(remove_duplicate=False))
        wanted = {
            name: tensor
            for name, tensor in self._replay.tensors().items()
            if not name.startswith("model/") or name.removeprefix("model/") in names
        }
        self._check(wanted, next(self._num_checkpoints), step=step, sync_index=0)

    def _check(
        self, tensors: Mapping[str, Tensor], number: int, *, step: int, sync_index: int
    ) -> Sequence[NamedLanes] | None:
        agreement = self._agreement
        if agreement is None or not agreement.is_due(number):
            return None
        taken = named_lanes(tensors)
        num_repairs = agreement.num_repairs
        found = agreement.check(
            _total(taken),
            sync_index=sync_index,
            step=step,
            tensors=list(tensors.values()),
            take=lambda: _total(named_lanes(tensors)),
        )
        is_repaired = agreement.num_repairs > num_repairs
        if found is not None:
            self._tell(found, is_repaired=is_repaired)
        return None if is_repaired else taken

    def _tell(self, found: ReplicaDivergence, *, is_repaired: bool) -> None:
        emit(
            "replica_divergence",
            step=found.step,
            sync_index=found.sync_index,
            suspects=found.suspects,
            is_repaired=is_repaired,
        )
        if is_repaired:
            rank_zero_warn(f"{found}. They have the bits of the other ranks now.")
        elif not self._has_warned:  # what follows is most often the same difference
            self._has_warned = True
            rank_zero_warn(f"{found}. Training goes on.")


def _total(taken: Sequence[NamedLanes]) -> Lanes:
    return sum_lanes(one.lanes for one in taken)
