"""The collectives of an averaging event, on groups of their own."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import torch
import torch.distributed as dist

from lightning_elche.distributed.control_store import ControlStore
from lightning_elche.distributed.polling import pauses
from lightning_elche.exceptions import ElCheError, PeerLost, RankFailed

__all__ = ["Collectives", "GroupCollectives", "gather_lists", "is_about_peers"]

MIN_POLL_S, MAX_POLL_S = 0.0001, 0.002


class Collectives(Protocol):
    """What an averaging event needs; every rank calls the same methods in the same order."""

    rank: int
    world_size: int
    nodes: Sequence[int]  # the node of each rank, length world; all the same where it is no matter

    def scope(self, *, crosses_nodes: bool) -> AbstractContextManager[None]:
        """Until the exit, exchange with the ranks of all nodes, or with those of this node."""
        ...

    def gather(self, numbers: Sequence[float]) -> list[list[float]]:
        """Return the `numbers` of all ranks, in rank order."""
        ...

    def sum_(self, tensor: torch.Tensor) -> None:
        """Replace `tensor` by its sum over all ranks, bit-equal everywhere."""
        ...

    def max_(self, tensor: torch.Tensor) -> None:
        """Replace `tensor` by its maximum over all ranks."""
        ...

    def swap_parts(self, tensor: torch.Tensor) -> torch.Tensor:
        """Send the r-th of `world_size` equal parts to rank r, and return what came in, by rank."""
        ...

    def join_parts(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the tensors of all ranks one after the other."""
        ...


def gather_lists(collectives: Collectives, numbers: Sequence[int]) -> list[list[int]]:
    """Return the lists of all ranks, in rank order, which may be of different lengths."""
    lengths = [int(length) for (length,) in collectives.gather([len(numbers)])]
    padding = [0] * (max(lengths) - len(numbers))
    gathered = collectives.gather([*numbers, *padding]) if max(lengths) else [[] for _ in lengths]
    return [
        [int(number) for number in part[:length]]
        for part, length in zip(gathered, lengths, strict=True)
    ]


@dataclass(frozen=True, kw_only=True)
class _Groups:
    size: int
    numbers: dist.ProcessGroup
    payload: dist.ProcessGroup

    def destroy(self) -> None:
        dist.destroy_process_group(self.numbers)
        dist.destroy_process_group(self.payload)


class GroupCollectives:
    """Collectives on two private process groups.

    Private groups leave the default group to Lightning and to user code, so that nothing of ours
    can pair up with a collective of theirs. Numbers travel on a Gloo group on the CPU, parameters
    on a group of the default backend.

    Args:
        timeout_s: Longest wait for a peer in seconds.
        store: Tells, while waiting, whether the run has failed elsewhere.
        backend: Backend of the parameters' group. Default: that of the default group.
        node: This rank's node, for groups inside each node as well. Default: no such groups.
    """

    def __init__(
        self,
        *,
        timeout_s: float,
        store: ControlStore,
        backend: str | None = None,
        node: int | None = None,
    ) -> None:
        timeout = timedelta(seconds=timeout_s)
        backend = backend or dist.get_backend()
        self.rank = dist.get_rank()
        self.world_size = dist.get_world_size()
        self._timeout_s = timeout_s
        self._store = store
        self._world = self._groups = self._node = _open(range(self.world_size), backend, timeout)
        self.nodes: Sequence[int] = [0] * self.world_size
        self._kept: object = None
        if node is not None:
            self.nodes = [int(other) for (other,) in self.gather([node])]
        if len(set(self.nodes)) > 1:
            groups = {}
            for number in sorted(set(self.nodes)):
                ranks = [rank for rank, other in enumerate(self.nodes) if other == number]
                groups[number] = _open(ranks, backend, timeout)
            self._node = groups[self.nodes[self.rank]]

    def close(self) -> None:
        """Destroy the groups; nothing can be exchanged any more."""
        if self._node is not self._world:
            self._node.destroy()
        self._world.destroy()
        del self._world, self._groups, self._node  # their threads end with the last reference

    @contextlib.contextmanager
    def scope(self, *, crosses_nodes: bool) -> Iterator[None]:
        """Until the exit, exchange with the ranks of all nodes, or with those of this node."""
        self._groups = self._world if crosses_nodes else self._node
        try:
            yield
        finally:
            self._groups = self._world

    def gather(self, numbers: Sequence[float]) -> list[list[float]]:
        """Return the `numbers` of all ranks in the scope, in rank order.

        Raises:
            PeerLost: If a peer does not arrive in time or its connection closes.
            RankFailed: If a peer posts a failure meanwhile.
        """
        own = torch.tensor(numbers, dtype=torch.float64)
        parts = [torch.empty_like(own) for _ in range(self._groups.size)]
        with self._explaining("at an averaging event"):
            self._wait(dist.all_gather(parts, own, group=self._groups.numbers, async_op=True))
        # Before torch 2.6, a thread of the group that lets go of a tensor last waits for the GIL,
        # which the end of the group holds while it waits for the thread.
        self._kept = (own, parts)
        return [part.tolist() for part in parts]

    def sum_(self, tensor: torch.Tensor) -> None:
        """Replace `tensor` by its sum over all ranks."""
        self._reduce(tensor, dist.ReduceOp.SUM)

    def max_(self, tensor: torch.Tensor) -> None:
        """Replace `tensor` by its maximum over all ranks."""
        self._reduce(tensor, dist.ReduceOp.MAX)

    def swap_parts(self, tensor: torch.Tensor) -> torch.Tensor:
        """Send the r-th of `world_size` equal parts to rank r, and return what came in, by rank."""
        parts = torch.empty_like(tensor)
        with self._explaining("while parameters were exchanged"):
            dist.all_to_all_single(parts, tensor, group=self._world.payload)
        return parts.view(self.world_size, -1)

    def join_parts(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the tensors of all ranks one after the other."""
        joined = tensor.new_empty(self.world_size * tensor.numel())
        parts = list(joined.chunk(self.world_size))
        with self._explaining("while parameters were exchanged"):
            dist.all_gather(parts, tensor, group=self._world.payload)
        return joined

    def _reduce(self, tensor: torch.Tensor, op: dist.ReduceOp.RedOpType) -> None:
        with self._explaining("while parameters were exchanged"):
            dist.all_reduce(tensor, op=op, group=self._groups.payload)

    @contextlib.contextmanager
    def _explaining(self, when: str) -> Iterator[None]:
        try:
            yield
        except RuntimeError as err:
            raise self.explained(err, when) from err

    def explained(self, err: RuntimeError, when: str) -> RuntimeError:
        """Return the error that tells most: the peer's own, ours, or what the backend said."""
        if isinstance(err, (RankFailed, PeerLost)):
            return err
        try:
            self._store.raise_if_failed(at_once=True)
        except (RankFailed, PeerLost) as cause:
            return cause
        return PeerLost((), f"A peer was lost {when}: {err}")

    def _wait(self, work: dist.Work) -> None:
        # Polling keeps the main thread responsive to signals and to failures posted elsewhere.
        deadline = time.monotonic() + self._timeout_s
        naps = pauses(MIN_POLL_S, MAX_POLL_S)
        while not work.is_completed():
            self._store.raise_if_failed()
            if time.monotonic() > deadline:
                raise PeerLost(
                    (),
                    f"A peer did not arrive at an averaging event within `timeout_s`="
                    f"{self._timeout_s:g}. Raise it if a training step can take that long.",
                )
            next(naps)
        work.wait()


def is_about_peers(err: RuntimeError) -> bool:
    """Whether a collective has failed since a peer is gone or late, rather than for its values."""
    is_ours = isinstance(err, ElCheError)
    # Gloo raises a plain error that names the file of its transport.
    return not is_ours and (isinstance(err, dist.DistError) or "gloo/transport" in str(err))


def _open(ranks: Sequence[int], backend: str, timeout: timedelta) -> _Groups:
    """Open groups of these ranks; every rank calls this, whether it is one of them or not."""
    # Order: numbers, then payload.
    return _Groups(
        size=len(ranks),
        numbers=dist.new_group(list(ranks), backend="gloo", timeout=timeout),
        payload=dist.new_group(list(ranks), backend=backend, timeout=timeout),
    )
