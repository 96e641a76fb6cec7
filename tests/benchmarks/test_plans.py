"""Tests of what each run of the benchmark consists of."""

from __future__ import annotations

import pytest
from peers import PEERS
from plans import Pace, plans_of
from report import OURS

PACE = Pace(batches=100, quotas=(0.25,))


def test_runs_last_equally_long() -> None:
    """Each rank of each run gets batches in proportion to the speed it should have."""
    plans = plans_of(["raw", "ddp", "elche"], PACE)
    assert {plan.name: plan.batches for plan in plans} == {
        "solo fast": (100,),
        "solo slow": (25,),
        "side by side": (100, 25),
        "raw fast": (100,),
        "raw slow": (25,),
        "ddp": (50, 50),
        "elche": (125, 125),
    }


def test_peers_get_whole_windows_equal_or_tuned_by_hand() -> None:
    """100 batches of the fast rank are two to three windows of 10 slow steps; Join has none."""
    plans = plans_of(list(PEERS), PACE)[3:]
    assert {plan.name: (plan.batches, plan.local_steps) for plan in plans} == {
        "join": ((57, 14), ()),
        **dict.fromkeys(["averager", "accelerate", "torchft", "diloco"], ((20, 20), (10, 10))),
        **dict.fromkeys(["torchft-tuned", "diloco-tuned"], ((80, 20), (40, 10))),
    }


def test_a_slow_link_is_reckoned_with() -> None:
    """DDP exchanges at every step, local SGD once in a window."""
    pace = Pace(batches=1000, quotas=(1.0,), exchange_batches=9.0)
    plans = {plan.name: plan.batches for plan in plans_of(["ddp", "averager"], pace)}
    assert (plans["ddp"], plans["averager"]) == ((200, 200), (530, 530))


def test_equal_ranks_double_the_speed_of_both_strategies() -> None:
    """At 1:1 DDP should reach the sum."""
    plans = plans_of(["ddp", "elche"], Pace(batches=100, quotas=(1.0,)))
    assert [plan.batches for plan in plans[-2:]] == [(200, 200), (200, 200)]


def test_side_by_side_the_ranks_do_not_meet() -> None:
    """It is two trainings at the same time, not one."""
    together = {plan.name: plan.together for plan in plans_of(["elche"], PACE)}
    assert [name for name, it_is in together.items() if it_is] == ["elche"]


def test_every_row_of_ours_trains_the_same_batches() -> None:
    """Whatever its options."""
    plans = {plan.name: plan.batches for plan in plans_of(list(OURS), PACE)}
    assert {plans[name] for name in OURS} == {(125, 125)}


@pytest.mark.parametrize("modes", [[], ["elche"]])
def test_the_ranks_alone_are_always_measured(modes: list[str]) -> None:
    """Without them there is no sum."""
    names = [plan.name for plan in plans_of(modes, PACE)]
    assert names == ["solo fast", "solo slow", "side by side", *modes]


def test_a_run_has_some_batches_however_short_it_is() -> None:
    """No rank is left without a batch, and no peer without an averaging."""
    plans = plans_of(["join", "averager", "elche"], Pace(batches=1, quotas=(0.01,)))
    assert min(min(plan.batches) for plan in plans) == 8


def test_counts_by_hand_are_those_of_the_first_quota() -> None:
    """20 and 10 at a half; at an eighth such a window takes as long as 80 fast batches."""
    (*_, plan) = plans_of(["torchft-tuned"], Pace(batches=160, quotas=(0.5, 0.125)))
    assert (plan.local_steps, plan.batches) == ((20, 10), (100, 50))
