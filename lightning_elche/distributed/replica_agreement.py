"""Checks after an average that all ranks hold the same bits, and names those that do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from lightning_elche.partition.errors import ReplicaDivergence
from lightning_elche.partition.fnv import Lanes
from lightning_elche.partition.replicas import ReplicaConfig

__all__ = ["Channel", "ReplicaAgreement", "suspects_of"]

HALF = 1 << 32


class Channel(Protocol):
    """The part of `Collectives` that is needed."""

    rank: int
    world_size: int

    def gather(self, numbers: Sequence[float]) -> list[list[float]]:
        """Return the `numbers` of all ranks, in rank order."""
        ...

    def sum_(self, tensor: Tensor) -> None:
        """Replace `tensor` by its sum over all ranks."""
        ...


class ReplicaAgreement:
    """Compares the lanes of all ranks, 16 bytes of each.

    Args:
        config: What to do.
        channel: To the other ranks, which make the same calls in the same order.

    Attributes:
        num_checks: How often replicas were compared.
        num_repairs: How often they were made equal again.

    Example:
        >>> from lightning_elche.distributed.replica_agreement import suspects_of
        >>> suspects_of([(1, 2), (1, 2), (7, 8)])
        (2,)
    """

    def __init__(self, config: ReplicaConfig, channel: Channel) -> None:
        self._config = config
        self._channel = channel
        self.num_checks = 0
        self.num_repairs = 0

    def is_due(self, sync_index: int) -> bool:
        """Return whether replicas are compared after averaging event `sync_index`, from 0."""
        every = self._config.check_every
        return every > 0 and (sync_index + 1) % every == 0

    def check(
        self,
        lanes: Lanes,
        *,
        sync_index: int,
        step: int,
        tensors: Sequence[Tensor] = (),
        take: Callable[[], Lanes] | None = None,
    ) -> ReplicaDivergence | None:
        """Compare replicas, and return how they differ if that is not raised.

        Cost: one all-gather of four numbers; a repair sends the tensors and takes lanes once more.

        Args:
            lanes: Of the tensors of this rank, together.
            sync_index: Number of the averaging event.
            step: Of the state.
            tensors: What is repaired, in the same order on every rank.
            take: Takes their lanes again.

        Raises:
            ReplicaDivergence: The same one on every rank.
        """
        self.num_checks += 1
        found = self._compare(lanes, sync_index, step)
        if found is None or self._config.on_disagree == "warn":
            return found
        source = _source(found)
        if self._config.on_disagree == "raise" or source is None or take is None:
            raise found
        self._send(tensors, source)
        still = self._compare(take(), sync_index, step)
        if still is not None:
            raise still
        self.num_repairs += 1
        return found

    def _compare(self, lanes: Lanes, sync_index: int, step: int) -> ReplicaDivergence | None:
        # As halves, since the numbers travel as floats of 53 bits.
        halves = [float(half) for lane in lanes for half in divmod(lane, HALF)]
        values = tuple(_lanes_of(part) for part in self._channel.gather(halves))
        if len(set(values)) == 1:
            return None
        return ReplicaDivergence(sync_index, step, suspects_of(values), values)

    def _send(self, tensors: Sequence[Tensor], source: int) -> None:
        """Give all ranks the tensors of rank `source`, bit for bit, by sums of integers."""
        is_source = self._channel.rank == source
        for tensor in tensors:
            flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
            bits = flat.clone() if is_source else torch.zeros_like(flat)
            self._channel.sum_(bits)
            if not is_source:
                same = bits.view(tensor.dtype).view(tensor.shape)
                with torch.no_grad():
                    tensor.copy_(same)


def suspects_of(values: Sequence[Lanes]) -> tuple[int, ...]:
    """Return the ranks outside a strict majority; none if there is no such majority.

    Args:
        values: The lanes of all ranks, in rank order.
    """
    most, count = Counter(values).most_common(1)[0]
    if 2 * count <= len(values):
        return ()
    return tuple(rank for rank, lanes in enumerate(values) if lanes != most)


def _source(found: ReplicaDivergence) -> int | None:
    """Return the lowest rank of the majority; `None` if there is none."""
    if not found.suspects:
        return None
    ranks = range(len(found.values))
    return next(rank for rank in ranks if rank not in found.suspects)


def _lanes_of(halves: Sequence[float]) -> Lanes:
    high0, low0, high1, low1 = (int(half) for half in halves)
    return high0 * HALF + low0, high1 * HALF + low1
