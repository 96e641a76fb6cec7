"""Whole runs in explicit time: what the rules amount to together."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_elche.control.cadence import CadenceConfig
from lightning_elche.control.chunks import ChunkConfig
from lightning_elche.control.simulation import Scenario, SimulatedRun, simulate

MS_1_4 = (10.0, 40.0)
RATIOS = st.lists(st.floats(min_value=1.0, max_value=16.0), min_size=1, max_size=3)


def run_of(*ms: float, batches: int = 1000, **options: Any) -> SimulatedRun:
    """Simulate ranks of constant speed."""
    return simulate(
        Scenario(world_size=len(ms), step_ms=lambda rank, _: ms[rank], batches=batches, **options)
    )


def slowed_run(factor: float, *, rank: int = 1, from_ms: float) -> SimulatedRun:
    """Simulate two ranks of 10 and 40 ms, one of which becomes slower at a time."""
    slowed = rank

    def step_ms(rank: int, time_ms: float) -> float:
        is_slower = rank == slowed and time_ms >= from_ms
        return MS_1_4[rank] * (factor if is_slower else 1.0)

    return simulate(Scenario(world_size=2, step_ms=step_ms, batches=3000))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"epochs": 0}, "epochs"),
        ({"prefetch": 0}, "prefetch"),
        ({"chunks": ChunkConfig(progressive=False)}, "chunks"),
    ],
)
def test_scenario_is_refused_with_the_name_of_a_bad_value(
    options: dict[str, Any], named: str
) -> None:
    """A value that cannot be simulated raises an error that names the parameter."""
    with pytest.raises(ValueError, match=f"`{named}`"):
        run_of(10.0, 10.0, **options)


def test_run_is_refused_with_fewer_batches_than_ranks() -> None:
    """The rules of the pool hold in a simulation too."""
    with pytest.raises(ValueError, match="`dataloader`"):
        run_of(10.0, 10.0, batches=1)


def test_first_event_is_set_by_the_slowest_rank() -> None:
    """The slow rank's tenth step ends the first window, and the fast rank has made 40."""
    event = run_of(40.0, 10.0).events[0]
    assert (event.time_ms, event.batches, event.wait_ms) == (400.0, (10, 40), (0.0, 0.0))


def test_fast_rank_keeps_training_until_the_slow_one_agrees() -> None:
    """Ranks wait at most for the rest of a faster rank's step, also before speeds are known."""
    event = run_of(30.0, 71.0).events[0]
    assert (event.time_ms, event.batches, event.wait_ms) == (720.0, (24, 10), (0.0, 10.0))


def test_exchange_takes_its_time_between_windows() -> None:
    """Every event stops all ranks for the cost of the exchange."""
    first, second, *_ = run_of(40.0, 10.0, transfer_ms=7.0).events
    assert (first.time_ms, second.time_ms) == (400.0, 807.0)


def test_run_of_one_batch_per_rank_is_one_event() -> None:
    """The shortest epoch trains the reserved batches and meets once."""
    run = run_of(10.0, 40.0, batches=2, transfer_ms=5.0)
    assert (run.consumed, run.wall_ms) == ((((0,), (1,)),), 45.0)
    assert run.events[0].wait_ms == (30.0, 0.0)


def test_metrics_of_an_epoch_include_its_last_event() -> None:
    """Times of the closing event count in its own epoch."""
    epochs = run_of(10.0, 40.0, batches=2, epochs=2, transfer_ms=5.0).epochs
    assert [epoch.epoch for epoch in epochs] == [0, 1]
    assert [epoch.wait_ms for epoch in epochs] == [(30.0, 0.0)] * 2
    assert [epoch.transfer_ms for epoch in epochs] == [(5.0, 5.0)] * 2


def test_drained_rank_takes_part_with_no_batches() -> None:
    """A rank without data joins the remaining events of the epoch."""
    events = run_of(10.0, 1000.0, batches=30, cadence=CadenceConfig(anchor=1)).events
    assert (events[0].batches[1], events[-1].batches) == (1, (0, 1))


def test_costly_exchange_lengthens_the_window() -> None:
    """At a cost of 30 ms in 100 the anchor grows sixfold for a target of 5 %."""
    anchors = [event.anchor for event in run_of(10.0, 10.0, transfer_ms=30.0).events]
    assert anchors[:3] == [10, 60, 60]


def test_cheap_exchange_keeps_the_window() -> None:
    """Below the target the anchor stays where it was set."""
    events = run_of(10.0, 10.0, transfer_ms=2.0, batches=400).events
    assert {event.anchor for event in events} == {10}


@pytest.mark.parametrize(
    ("ms", "bound"),
    [
        ((17.0, 17.0), 0.995),
        ((17.0, 34.0), 0.995),
        ((17.0, 68.0), 0.995),
        ((17.0, 136.0), 0.995),
        ((17.0, 51.0, 170.0), 0.98),
    ],
)
def test_efficiency_is_near_the_sum_of_speeds(ms: tuple[float, ...], bound: float) -> None:
    """2000 batches train at nearly the sum of the ranks' speeds."""
    assert bound <= run_of(*ms, batches=2000).efficiency <= 1.0


def test_efficiency_shows_the_cost_of_the_exchange() -> None:
    """5 ms for every 100 ms of training leave at most 95.3 %."""
    assert 0.94 <= run_of(10.0, 10.0, transfer_ms=5.0).efficiency <= 0.953


def test_slow_rank_falls_behind_without_adaptation() -> None:
    """A rank that makes the same steps as a fast one would halve the efficiency."""
    assert 2 * 1000 / (1000 * 40.0) / (1 / 10.0 + 1 / 40.0) < 0.45 < run_of(10.0, 40.0).efficiency


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("from_ms", [6000.0, 6137.0, 6305.0, 6399.0])
def test_slowdown_is_absorbed_within_two_rounds(rank: int, from_ms: float) -> None:
    """Two rounds after a rank became 30 % slower, each round is at the sum of the new speeds.

    The round in which it happens is the first. Later ones lose at most 3 %.
    """
    events = slowed_run(1.3, rank=rank, from_ms=from_ms).events
    speed = sum(1.0 / (ms * (1.3 if slowed == rank else 1.0)) for slowed, ms in enumerate(MS_1_4))
    absorbed = [event.time_ms > from_ms for event in events].index(True) + 1
    rounds = list(pairwise(events[absorbed:-1]))  # the last ends with the data, not the window
    speeds = [sum(b.batches) / (b.time_ms - a.time_ms) for a, b in rounds]
    assert len(rounds) > 30
    assert min(speeds) >= 0.97 * speed


def test_slowdown_costs_next_to_no_throughput() -> None:
    """A run with a slowdown in its midst trains at what both halves can."""
    run = slowed_run(1.3, from_ms=12_000.0)
    ideal_ms = 12_000.0 + (3000 - 12_000.0 * (0.1 + 0.025)) / (0.1 + 1 / 52.0)
    assert ideal_ms <= run.wall_ms <= 1.01 * ideal_ms


def test_waits_are_at_most_one_fast_step_within_an_epoch() -> None:
    """Before the tail, no rank of two waits longer than one step of the faster one."""
    events = run_of(17.0, 73.0, batches=2000).events[:-2]
    assert max(max(event.wait_ms) for event in events) <= 17.0


@pytest.mark.parametrize("slow_ms", [10.0, 20.0, 45.0, 80.0, 160.0])
def test_tail_is_at_most_two_slow_steps(slow_ms: float) -> None:
    """Nobody waits longer than two steps of the slowest rank at the end of an epoch."""
    event = run_of(10.0, slow_ms, batches=1000).events[-1]
    assert max(event.wait_ms) <= 2.0 * slow_ms


def test_batches_are_consumed_once_with_deep_prefetch() -> None:
    """Workers that hold eight batches ready lose none."""
    run = run_of(10.0, 40.0, batches=100, prefetch=8)
    assert sorted(run.consumed[0][0] + run.consumed[0][1]) == list(range(100))


@settings(max_examples=60)
@given(
    ratios=RATIOS,
    extra=st.integers(min_value=0, max_value=150),
    prefetch=st.integers(min_value=1, max_value=5),
    anchor=st.integers(min_value=1, max_value=20),
)
def test_every_batch_is_consumed_once_for_any_speeds(
    ratios: list[float], extra: int, prefetch: int, anchor: int
) -> None:
    """Two epochs of any length on ranks of any speed train each batch exactly once."""
    ms = [10.0, *(10.0 * ratio for ratio in ratios)]
    total = len(ms) + extra
    options = {"epochs": 2, "prefetch": prefetch, "cadence": CadenceConfig(anchor=anchor)}
    for ranks in run_of(*ms, batches=total, **options).consumed:
        assert sorted(index for rank in ranks for index in rank) == list(range(total))
        assert min(len(rank) for rank in ranks) >= 1


@settings(max_examples=60)
@given(ratio=st.floats(min_value=1.0, max_value=16.0))
def test_efficiency_is_high_for_any_ratio_of_two_ranks(ratio: float) -> None:
    """1000 batches on two ranks, one up to 16 times slower, reach 95 % of the sum of speeds."""
    assert run_of(10.0, 10.0 * ratio).efficiency >= 0.95


@settings(max_examples=40)
@given(ratios=st.lists(st.floats(min_value=1.0, max_value=16.0), min_size=2, max_size=3))
def test_efficiency_is_high_for_any_ratios_of_more_ranks(ratios: list[float]) -> None:
    """1500 batches on three or four ranks reach 90 % of the sum of speeds."""
    assert run_of(10.0, *(10.0 * r for r in ratios), batches=1500).efficiency >= 0.90


@settings(max_examples=40)
@given(seed=st.integers(min_value=0, max_value=2**32 - 1))
def test_every_batch_is_consumed_once_while_speeds_drift(seed: int) -> None:
    """Steps that jitter between half and four times their length lose no batch."""

    def step_ms(rank: int, time_ms: float) -> float:
        return 5.0 + (seed * (rank + 1) + int(time_ms * 7)) % 35

    run = simulate(Scenario(world_size=3, step_ms=step_ms, batches=120))
    assert sorted(index for rank in run.consumed[0] for index in rank) == list(range(120))


@given(ms=st.lists(st.floats(min_value=5.0, max_value=80.0), min_size=2, max_size=4))
def test_wall_time_covers_the_time_of_every_rank(ms: list[float]) -> None:
    """Compute, wait and transfer of each rank sum to the duration of the run."""
    run = run_of(*ms, batches=200, transfer_ms=3.0)
    metrics = run.epochs[0]
    for parts in zip(metrics.compute_ms, metrics.wait_ms, metrics.transfer_ms, strict=True):
        assert sum(parts) == pytest.approx(run.wall_ms)


@pytest.mark.slow
def test_thousand_ranks_are_simulated() -> None:
    """A run of 1024 ranks consumes every batch once."""
    run = run_of(*(10.0 + rank % 16 for rank in range(1024)), batches=1024 * 8)
    assert sum(run.epochs[0].batches) == 1024 * 8
