"""Simulates a run: the rules that the strategy follows, in explicit time and without training."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from lightning_elche.control.cadence import CadenceConfig
from lightning_elche.control.chunks import ChunkConfig, ChunkPool, chunk_size, should_leave
from lightning_elche.control.controller import Controller
from lightning_elche.control.epoch_metrics import EpochMetrics, EpochTotals
from lightning_elche.control.reports import Report
from lightning_elche.control.schedule import Window, is_ready, patience_ms

__all__ = ["Scenario", "SimulatedEvent", "SimulatedRun", "simulate"]


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What to simulate.

    Args:
        world_size: Number of ranks.
        step_ms: Returns how long the step takes that a rank begins at a time: `(rank, time_ms)`.
        batches: Batches in an epoch, over all ranks.
        epochs: Number of epochs.
        transfer_ms: Cost of exchanging parameters at one averaging event.
        prefetch: Batches that a rank holds ready beside the one it trains: 1 in Lightning's
            fetcher, more with DataLoader workers.
        cadence: How often ranks meet.
        chunks: How batches are dealt; fixed parts (`progressive=False`) are not simulated.
    """

    world_size: int
    step_ms: Callable[[int, float], float]
    batches: int
    epochs: int = 1
    transfer_ms: float = 0.0
    prefetch: int = 1
    cadence: CadenceConfig = field(default_factory=CadenceConfig)
    chunks: ChunkConfig = field(default_factory=ChunkConfig)

    def __post_init__(self) -> None:
        """Validate what the parts do not."""
        if self.epochs < 1:
            raise ValueError(f"`epochs` must be >= 1, got {self.epochs}.")
        if self.prefetch < 1:
            raise ValueError(f"`prefetch` must be >= 1, got {self.prefetch}.")
        if not self.chunks.is_progressive("cadence"):
            raise ValueError("`chunks` must be dealt progressively, got fixed parts.")


@dataclass(frozen=True, kw_only=True)
class SimulatedEvent:
    """One averaging event.

    Attributes:
        time_ms: When the last rank arrived.
        batches: Batches of each rank since the event before.
        wait_ms: Time that each rank waited for the others.
        anchor: Steps of the slowest rank until the next event.
    """

    time_ms: float
    batches: tuple[int, ...]
    wait_ms: tuple[float, ...]
    anchor: int


@dataclass(frozen=True, kw_only=True)
class SimulatedRun:
    """What happened in a simulated run.

    Attributes:
        events: Averaging events in order.
        epochs: Metrics of every epoch; a batch counts as one sample.
        consumed: Indices of the batches trained, by epoch and rank, in order.
        wall_ms: Duration of the run.
        solo_speeds: Batches per millisecond of each rank alone, at the begin of the run.
    """

    events: tuple[SimulatedEvent, ...]
    epochs: tuple[EpochMetrics, ...]
    consumed: tuple[tuple[tuple[int, ...], ...], ...]
    wall_ms: float
    solo_speeds: tuple[float, ...]

    @property
    def efficiency(self) -> float:
        """Throughput over the sum of the solo speeds; means something if these are constant."""
        batches = sum(sum(epoch.batches) for epoch in self.epochs)
        return batches / self.wall_ms / sum(self.solo_speeds)


def simulate(scenario: Scenario) -> SimulatedRun:
    """Simulate a run, at a cost of O(log(world_size)) per batch and O(world_size) per claim.

    Raises:
        ValueError: If there are fewer batches than ranks, or fewer than two ranks.

    Example:
        >>> run = simulate(
        ...     Scenario(world_size=2, step_ms=lambda rank, _: (17.0, 68.0)[rank], batches=1000)
        ... )
        >>> round(run.efficiency, 2)
        1.0
    """
    simulation = _Simulation(scenario)
    for epoch in range(scenario.epochs):
        simulation.run_epoch(epoch)
    return SimulatedRun(
        events=tuple(simulation.events),
        epochs=tuple(simulation.epochs),
        consumed=tuple(simulation.consumed),
        wall_ms=simulation.now,
        solo_speeds=tuple(1.0 / scenario.step_ms(rank, 0.0) for rank in range(scenario.world_size)),
    )


class _Lane:
    """One rank: what `Rounds` and `Dealer` know of it."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.cost_ms = (0.0, 0.0)  # wait and transfer at the last event
        self.begin_epoch()

    def begin_epoch(self) -> None:
        self.queue = deque([self.rank])  # claimed, not given out; first the reserved batch
        self.given: deque[int] = deque()  # given out, not trained; first the one in training
        self.trained: list[int] = []
        self.has_left = self.is_drained = False
        self.begin_window()

    def begin_window(self) -> None:
        self.steps, self.compute_ms, self.wait_ms = 0, 0.0, 0.0
        self.has_agreed = self.has_arrived = False
        self.waits_since: float | None = None  # for the others to agree or to arrive


class _Simulation:
    """The clock, what all ranks share, and one lane per rank."""

    def __init__(self, scenario: Scenario) -> None:
        self.now = 0.0
        self.events: list[SimulatedEvent] = []
        self.epochs: list[EpochMetrics] = []
        self.consumed: list[tuple[tuple[int, ...], ...]] = []
        self._scenario = scenario
        self._controller = Controller(scenario.world_size, cadence=scenario.cadence)
        self._plan = self._controller.plan
        self._totals = EpochTotals(scenario.world_size)
        self._lanes = [_Lane(rank) for rank in range(scenario.world_size)]
        self._wakes: list[tuple[float, int]] = []  # (when, rank) acts next

    def run_epoch(self, epoch: int) -> None:
        self._pool = ChunkPool(total=self._scenario.batches, world_size=len(self._lanes))
        self._last_rank: int | None = None
        self._totals.reset()
        for lane in self._lanes:
            lane.begin_epoch()
        while not all(lane.is_drained for lane in self._lanes):
            self._run_window()
            self._meet(epoch)
        self._totals.add_costs([lane.cost_ms for lane in self._lanes])
        self.epochs.append(self._totals.metrics(epoch))
        self.consumed.append(tuple(tuple(lane.trained) for lane in self._lanes))

    def _run_window(self) -> None:
        """Let all ranks train from the end of one event until the last arrives at the next."""
        self._wakes.clear()
        self._num_agreed = self._num_arrived = 0
        for lane in self._lanes:
            (self._decide if lane.is_drained else self._begin_step)(lane)
        while self._num_arrived < len(self._lanes):
            self.now, rank = heapq.heappop(self._wakes)
            lane = self._lanes[rank]
            if lane.waits_since is None:
                self._end_step(lane)
            elif not lane.has_arrived:  # its patience is over
                lane.wait_ms += self.now - lane.waits_since
                lane.waits_since = None
                self._begin_step(lane)

    def _begin_step(self, lane: _Lane) -> None:
        # The fetcher asks for batches ahead before the present one is trained.
        while len(lane.given) <= self._scenario.prefetch and (lane.queue or self._claim(lane)):
            lane.given.append(lane.queue.popleft())
        step_ms = self._scenario.step_ms(lane.rank, self.now)
        lane.compute_ms += step_ms
        heapq.heappush(self._wakes, (self.now + step_ms, lane.rank))

    def _end_step(self, lane: _Lane) -> None:
        lane.steps += 1
        lane.trained.append(lane.given.popleft())
        lane.is_drained = not lane.given
        self._decide(lane)

    def _decide(self, lane: _Lane) -> None:
        """Do what `Rounds.is_due` does at a step boundary, and what follows from its answer."""
        plan, rank = self._plan, lane.rank
        window = Window(steps=lane.steps, compute_ms=lane.compute_ms, is_drained=lane.is_drained)
        if not lane.has_agreed and is_ready(plan, rank, window):
            lane.has_agreed = True
            self._num_agreed += 1
            if self._num_agreed == len(self._lanes):
                for other in self._lanes:
                    if other.waits_since is not None:
                        self._arrive(other)
        if self._num_agreed == len(self._lanes):
            self._arrive(lane)
            return
        patience = math.inf if lane.is_drained else patience_ms(plan, rank, window)
        if lane.has_agreed and patience:
            lane.waits_since = self.now
            heapq.heappush(self._wakes, (self.now + patience, rank))
        else:
            self._begin_step(lane)

    def _arrive(self, lane: _Lane) -> None:
        lane.has_arrived = True
        self._num_arrived += 1
        if lane.waits_since is None:
            lane.waits_since = self.now

    def _meet(self, epoch: int) -> None:
        """Do what `Rounds.average` does, without parameters."""
        reports = [self._report(lane, epoch) for lane in self._lanes]
        self._totals.add(reports)
        self._plan = self._controller.report(reports)
        for lane in self._lanes:
            assert lane.waits_since is not None
            wait_ms = lane.wait_ms + self.now - lane.waits_since
            lane.cost_ms = (wait_ms, self._scenario.transfer_ms)
            lane.begin_window()
        self.events.append(
            SimulatedEvent(
                time_ms=self.now,
                batches=tuple(report.batches for report in reports),
                wait_ms=tuple(lane.cost_ms[0] for lane in self._lanes),
                anchor=self._plan.anchor,
            )
        )
        self.now += self._scenario.transfer_ms

    def _report(self, lane: _Lane, epoch: int) -> Report:
        return Report(
            epoch=epoch,
            batches=lane.steps,
            optimizer_steps=lane.steps,
            samples=lane.steps,
            weight=float(lane.steps),
            compute_ms=lane.compute_ms,
            wait_ms=lane.cost_ms[0],
            transfer_ms=lane.cost_ms[1],
            is_drained=lane.is_drained,
        )

    def _claim(self, lane: _Lane) -> bool:
        """Do what `Dealer` does when a rank has given out all that it claimed."""
        plan, remaining = self._plan, self._pool.remaining
        lane.has_left = lane.has_left or remaining == 0 or self._leaves(lane)
        if lane.has_left:
            return False
        size = chunk_size(
            plan,
            lane.rank,
            remaining=remaining,
            total=self._scenario.batches,
            min_chunk_batches=self._scenario.chunks.min_chunk_batches,
        )
        chunk = self._pool.claim(rank=lane.rank, size=size)
        lane.queue.extend(range(chunk.start, chunk.stop))
        return True

    def _leaves(self, lane: _Lane) -> bool:
        plan, in_flight = self._plan, len(lane.given)
        remaining = self._pool.remaining
        if not should_leave(plan, lane.rank, remaining=remaining, in_flight=in_flight):
            return False
        if self._last_rank is None:
            self._last_rank = plan.fastest
        return lane.rank != self._last_rank
