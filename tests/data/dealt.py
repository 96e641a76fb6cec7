"""Dealers of an epoch, one a rank, and ranks that train what they are dealt."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from torch.distributed import HashStore

from lightning_elche.control.chunks import ChunkConfig
from lightning_elche.control.controller import Controller
from lightning_elche.control.reports import Report
from lightning_elche.control.schedule import Plan
from lightning_elche.data.dealer import Dealer
from lightning_elche.distributed.control_store import ControlStore

__all__ = ["batches_of", "dealers_of", "flat", "open_all", "plan_of", "train"]


def plan_of(*ms: float) -> Plan:
    """Return the plan after one window in which steps took `ms` on the ranks."""
    reports = [Report(batches=10, compute_ms=10.0 * value) for value in ms]
    return Controller(len(ms)).report(reports)


def dealers_of(
    plan: Plan, *, limit: Callable[[int], int] = lambda total: total, **config: Any
) -> list[Dealer]:
    """Return one dealer per rank of `plan`, on one in-process store."""
    shared = HashStore()
    return [
        Dealer(
            ControlStore(shared, "run"),
            config=ChunkConfig(**config),
            rank=rank,
            plan=lambda: plan,
            limit=limit,
        )
        for rank in range(len(plan.local_steps))
    ]


def batches_of(total: int) -> list[list[int]]:
    """Return batches of two samples that tell their number."""
    return [[2 * number, 2 * number + 1] for number in range(total)]


def open_all(dealers: Sequence[Dealer], total: int, *, epoch: int = 0) -> None:
    """Open an epoch on every rank."""
    for dealer in dealers:
        dealer.open(epoch, batches_of(total))


def train(
    dealers: Sequence[Dealer], step_ms: Sequence[float], *, ahead: int = 1
) -> list[list[int]]:
    """Let ranks of these speeds train until they are drained; return each one's batch numbers."""
    streams = [dealer.deal() for dealer in dealers]
    ready: list[list[int]] = [[] for _ in dealers]
    trained: list[list[int]] = [[] for _ in dealers]
    ends = [(0.0, rank) for rank in range(len(dealers))]
    while ends:
        now, rank = heapq.heappop(ends)
        if now > 0.0:
            trained[rank].append(ready[rank].pop(0))
            dealers[rank].consume()
        missing = ahead + 1 - len(ready[rank])
        ready[rank] += [batch[0] // 2 for batch in itertools.islice(streams[rank], missing)]
        if ready[rank]:
            heapq.heappush(ends, (now + step_ms[rank], rank))
    return trained


def flat(parts: Sequence[Sequence[int]]) -> list[int]:
    """Return all numbers in order."""
    return sorted(itertools.chain.from_iterable(parts))
