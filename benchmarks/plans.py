"""The runs of one repeat: which ranks, and how many batches, so that all last equally long."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from peers import PEERS, Peer
from report import DDP, OURS, RAW, SIDE_BY_SIDE, SOLO

MIN_BATCHES = 8  # of an epoch
LOCAL_STEPS = 10  # of the slow rank between two averagings: the anchor that ElCheStrategy starts at


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast the ranks and their link are.

    Attributes:
        batches: What the fast rank alone trains in one epoch.
        quotas: Speed of the slow rank as a part of that of the fast one; if it changes during a
            run, one after the other.
        exchange_batches: What the fast rank trains while the model passes over the link once.
    """

    batches: int
    quotas: tuple[float, ...]
    exchange_batches: float = 0.0

    @property
    def quota(self) -> float:
        """The mean over time."""
        return sum(self.quotas) / len(self.quotas)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One run.

    Attributes:
        name: Its name in the results.
        mode: What the worker does.
        ranks: Which of the two ranks take part.
        batches: Batches of an epoch of each rank; over all ranks where a sampler shares them out.
        local_steps: Steps of each rank between two averagings, for peers that must be told.
    """

    name: str
    mode: str
    ranks: tuple[int, ...]
    batches: tuple[int, ...]
    local_steps: tuple[int, ...] = ()

    @property
    def together(self) -> bool:
        """Whether the ranks are one training rather than one each."""
        return len(self.ranks) > 1 and self.mode != "solo"

    @property
    def shares_batches(self) -> bool:
        """Whether the batches of one rank are those of all."""
        return self.together and self.mode not in PEERS


def plans_of(modes: Collection[str], pace: Pace) -> list[Plan]:
    """Return the runs of one repeat.

    Args:
        modes: What to measure beside the ranks alone.
        pace: How fast the ranks are.
    """
    relative = (1.0, pace.quota)
    plans = [_plan(name, "solo", {rank: relative[rank]}, pace) for rank, name in enumerate(SOLO)]
    plans.append(_plan(SIDE_BY_SIDE, "solo", dict(enumerate(relative)), pace))
    if "raw" in modes:
        plans += [_plan(name, "raw", {rank: relative[rank]}, pace) for rank, name in enumerate(RAW)]
    if DDP in modes:  # both go at the slow rank's speed
        step = 1.0 / pace.quota + pace.exchange_batches
        plans.append(_plan(DDP, DDP, {0: 2.0 / step, 1: 2.0 / step}, pace))
    plans += [_peer_plan(name, peer, pace) for name, peer in PEERS.items() if name in modes]
    both = dict.fromkeys((0, 1), 1.0 + pace.quota)
    return plans + [_plan(name, name, both, pace) for name in OURS if name in modes]


def _plan(name: str, mode: str, parts: dict[int, float], pace: Pace) -> Plan:
    """Give each rank a part of what the fast rank alone trains in one epoch."""
    batches = tuple(max(MIN_BATCHES, round(pace.batches * part)) for part in parts.values())
    return Plan(name=name, mode=mode, ranks=tuple(parts), batches=batches)


def _peer_plan(name: str, peer: Peer, pace: Pace) -> Plan:
    if not peer.is_local:
        # As long as both have batches they go at the slow rank's speed, then the fast one alone.
        part = 1.0 / (2.0 - pace.quota + pace.exchange_batches)
        return _plan(name, name, {0: part, 1: part * pace.quota}, pace)
    # By hand means once, for the speed that the slow rank begins with.
    steps = round(LOCAL_STEPS / pace.quotas[0]) if peer.is_tuned else LOCAL_STEPS, LOCAL_STEPS
    rates = [
        1.0 / (max(steps[0], steps[1] / quota) + pace.exchange_batches) for quota in pace.quotas
    ]
    # Whole windows, so that an epoch ends where the ranks meet.
    windows = max(1, round(pace.batches * sum(rates) / len(rates)))
    batches = tuple(windows * own for own in steps)
    return Plan(name=name, mode=name, ranks=(0, 1), batches=batches, local_steps=steps)
