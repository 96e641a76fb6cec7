"""Ranks as threads of one process: in-process collectives, and a runner with a timeout."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch.distributed import HashStore

from lightning_elche.distributed.control_store import ControlStore
from lightning_elche.exceptions import PeerLost

T = TypeVar("T")
S_co = TypeVar("S_co", covariant=True)
TIMEOUT_S = 20.0


class FakeGroup:
    """Where the threads of a group meet; `of(rank)` is that rank's side of it."""

    def __init__(
        self, world_size: int, *, timeout_s: float = TIMEOUT_S, nodes: Sequence[int] | None = None
    ) -> None:
        self.world_size = world_size
        self.nodes = list(nodes or [0] * world_size)
        self.inside: dict[int, FakeGroup] = {}  # the group of each node
        if nodes is not None:
            self.inside = {
                node: FakeGroup(self.nodes.count(node), timeout_s=timeout_s) for node in nodes
            }
        self._barrier = threading.Barrier(world_size, timeout=timeout_s)
        self._slots: list[Any] = [None] * world_size

    def of(self, rank: int) -> FakeCollectives:
        """Return the collectives of `rank`."""
        return FakeCollectives(self, rank)

    def swap(self, rank: int, value: T) -> list[T]:
        """Return the values of all ranks, in rank order."""
        try:
            self._slots[rank] = value
            self._barrier.wait()
            values = list(self._slots)
            self._barrier.wait()  # nobody writes again before everybody has read
        except threading.BrokenBarrierError as err:
            raise PeerLost((), "A peer did not arrive.") from err
        return values


class FakeCollectives:
    """The collectives of one rank; sums are taken in rank order, so bit-equal everywhere."""

    def __init__(self, group: FakeGroup, rank: int) -> None:
        self.rank = rank
        self.world_size = group.world_size
        self.nodes = group.nodes
        self._world = (group, rank)
        self._scope = self._world

    @contextlib.contextmanager
    def scope(self, *, crosses_nodes: bool) -> Iterator[None]:
        """Until the exit, exchange with all ranks, or with those of this node."""
        group, node = self._world[0], self.nodes[self.rank]
        if not crosses_nodes:
            self._scope = (group.inside[node], self.nodes[: self.rank].count(node))
        yield
        self._scope = self._world

    def _swap(self, value: T) -> list[T]:
        group, rank = self._scope
        return group.swap(rank, value)

    def gather(self, numbers: Sequence[float]) -> list[list[float]]:
        """Return the `numbers` of all ranks, in rank order."""
        return self._swap(list(numbers))

    def sum_(self, tensor: torch.Tensor) -> None:
        """Replace `tensor` by its sum over all ranks, added in its own type."""
        parts = self._swap(tensor.clone())
        tensor.copy_(parts[0])
        for part in parts[1:]:
            tensor += part

    def max_(self, tensor: torch.Tensor) -> None:
        """Replace `tensor` by its maximum over all ranks."""
        tensor.copy_(torch.stack(self._swap(tensor.clone())).amax(0))

    def swap_parts(self, tensor: torch.Tensor) -> torch.Tensor:
        """Send the r-th of equal parts to rank r, and return what came in, by rank."""
        parts = self._swap(tensor.clone())
        return torch.stack([part.view(self.world_size, -1)[self.rank] for part in parts])

    def join_parts(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the tensors of all ranks one after the other."""
        return torch.cat(self._swap(tensor.clone()))


def run_ranks(world_size: int, function: Callable[[int], T]) -> list[T]:
    """Call `function(rank)` on one thread per rank and return the values, in rank order.

    Raises:
        TimeoutError: If a rank does not end in time.
        Exception: What the first rank to fail, by number, raised.
    """
    outcomes = outcomes_of(world_size, function)
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    return outcomes


def outcomes_of(world_size: int, function: Callable[[int], T]) -> list[Any]:
    """Do as `run_ranks`, but return exceptions in place of values."""
    outcomes: list[Any] = [TimeoutError("still running")] * world_size

    def run(rank: int) -> None:
        try:
            outcomes[rank] = function(rank)
        except Exception as err:  # given to the caller
            outcomes[rank] = err

    threads = [threading.Thread(target=run, args=(r,), daemon=True) for r in range(world_size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
    return outcomes


def stores_of(world_size: int) -> list[ControlStore]:
    """Return one control store per rank, all on the same in-process store."""
    shared = HashStore()
    return [ControlStore(shared, "run") for _ in range(world_size)]


class FakeClock:
    """Seconds that pass when told to, and `passing_s` of them at every look."""

    def __init__(self, *, passing_s: float = 0.0) -> None:
        self.now = 0.0
        self._passing_s = passing_s

    def __call__(self) -> float:
        """Return the present second."""
        self.now += self._passing_s
        return self.now


class AveragesInSteps(Protocol[S_co]):
    """The averager of parameters or of optimizer states."""

    def load(self) -> None: ...
    def exchange(self, weights: Sequence[float]) -> S_co: ...
    def store(self) -> None: ...


def average_by(averager: AveragesInSteps[S_co], weights: Sequence[float]) -> S_co:
    """Take all steps of an average at once, and return what the exchange did."""
    averager.load()
    exchange = averager.exchange(weights)
    averager.store()
    return exchange
