"""Tests of what each run of the benchmark consists of."""

from __future__ import annotations

import pytest
from bench import joint_environment, runs_of
from rate_limit import host_at


def test_runs_last_equally_long() -> None:
    """Each rank of each run gets batches in proportion to the speed it should have."""
    plans = runs_of(["raw", "ddp", "elche"], batches=100, quota=0.25)
    assert {plan.name: plan.batches for plan in plans} == {
        "solo fast": (100,),
        "solo slow": (25,),
        "side by side": (100, 25),
        "raw fast": (100,),
        "raw slow": (25,),
        "ddp": (50, 50),
        "elche": (125, 125),
    }


def test_equal_ranks_double_the_speed_of_both_strategies() -> None:
    """At 1:1 DDP should reach the sum."""
    plans = runs_of(["ddp", "elche"], batches=100, quota=1.0)
    assert [plan.batches for plan in plans[-2:]] == [(200, 200), (200, 200)]


def test_side_by_side_the_ranks_do_not_meet() -> None:
    """It is two trainings at the same time, not one."""
    together = {plan.name: plan.together for plan in runs_of(["elche"], batches=9, quota=0.5)}
    assert [name for name, it_is in together.items() if it_is] == ["elche"]


@pytest.mark.parametrize("modes", [[], ["elche"]])
def test_the_ranks_alone_are_always_measured(modes: list[str]) -> None:
    """Without them there is no sum."""
    names = [plan.name for plan in runs_of(modes, batches=100, quota=0.25)]
    assert names == ["solo fast", "solo slow", "side by side", *modes]


def test_a_run_has_some_batches_however_short_it_is() -> None:
    """A slow rank is not left without a batch."""
    assert min(min(plan.batches) for plan in runs_of(["elche"], batches=1, quota=0.01)) == 8


def test_joint_runs_meet_on_this_machine_or_on_the_cable() -> None:
    """The address of rank 0 is that of its namespace, if it has one."""
    assert joint_environment(None)["MASTER_ADDR"] == "127.0.0.1"
    assert joint_environment((host_at(1), host_at(2)))["MASTER_ADDR"] == "10.77.0.1"


def test_the_name_of_an_interface_is_short_enough_for_linux(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At most 15 characters, also with the highest process id."""
    monkeypatch.setattr("os.getpid", lambda: 4_194_304)
    assert len(host_at(1).interface) <= 15
