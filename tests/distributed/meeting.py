"""Ranks of one process that train on clocks of their own, and meet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from lightning_elche.control.controller import Controller
from lightning_elche.control.events import AveragingEvent
from lightning_elche.distributed.averager import Averager
from lightning_elche.distributed.control_store import ControlStore
from lightning_elche.distributed.replica_exchange import ReplicaExchange
from lightning_elche.distributed.rounds import Rounds
from lightning_elche.distributed.timing import HostTimer
from tests.distributed.threads import FakeClock, FakeGroup, run_ranks, stores_of

__all__ = ["Rank", "measured_ranks", "meet", "ranks_of"]

STEP_S = (0.01, 0.04)  # of rank 0 and rank 1


@dataclass
class Rank:
    """One rank with a parameter of its own and a clock that its steps advance."""

    rounds: Rounds
    parameter: torch.Tensor
    clock: FakeClock
    store: ControlStore
    step_s: float

    def train(self, steps: int, *, is_optimizer_step: bool = True) -> None:
        """Make steps of four samples."""
        for _ in range(steps):
            self.rounds.window.begin_step()
            self.clock.now += self.step_s
            self.rounds.window.end_step(samples=4, is_optimizer_step=is_optimizer_step)


def ranks_of(
    world_size: int = 2, *, timeout_s: float = 10.0, nodes: list[int] | None = None
) -> list[Rank]:
    """Return ranks that hold their number as parameter."""
    group = FakeGroup(world_size, nodes=nodes)
    ranks = []
    for number, store in enumerate(stores_of(world_size)):
        parameter, clock = torch.tensor([float(number)]), FakeClock()
        rounds = Rounds(
            controller=Controller(world_size, nodes=nodes),
            collectives=group.of(number),
            store=store,
            replica=ReplicaExchange(Averager([parameter], [], group.of(number))),
            timer=HostTimer(clock),
            timeout_s=timeout_s,
        )
        ranks.append(Rank(rounds, parameter, clock, store, STEP_S[min(number, 1)]))
    return ranks


def meet(ranks: list[Rank], **flags: Any) -> list[AveragingEvent]:
    """Let all ranks average and return each one's event."""
    options = {"is_drained": False, **flags}
    return run_ranks(len(ranks), lambda rank: ranks[rank].rounds.average(**options))


def measured_ranks() -> list[Rank]:
    """Return two ranks after one window: 40 steps of 10 ms and 10 steps of 40 ms."""
    ranks = ranks_of()
    ranks[0].train(40)
    ranks[1].train(10)
    meet(ranks)
    return ranks
