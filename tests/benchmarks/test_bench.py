"""Tests of how results of ranks become one, and of how ranks find each other."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench import Bench, Run, joint_environment, joint_run
from plans import Pace, Plan
from rate_limit import host_at


def run_of(*, samples: int, seconds: float) -> Run:
    """Return the result of one rank."""
    return Run(
        samples=samples,
        batches=samples // 10,
        seconds=seconds,
        samples_per_s=samples / seconds,
        model_bytes=4,
        begun=0.0,
        ended=seconds,
        details={},
    )


def plan(mode: str) -> Plan:
    """Return a plan for both ranks."""
    return Plan(name=mode, mode=mode, ranks=(0, 1), batches=(40, 10))


RUNS = [run_of(samples=400, seconds=2.0), run_of(samples=100, seconds=2.5)]


def test_trainings_side_by_side_add_their_speeds() -> None:
    """Each has its own time."""
    assert joint_run(plan("solo"), RUNS)["samples_per_s"] == 200.0 + 40.0


def test_the_batches_of_peers_are_added_over_the_time_of_rank_0() -> None:
    """Each rank was given its own."""
    run = joint_run(plan("torchft-tuned"), RUNS)
    assert (run["samples"], run["batches"], run["samples_per_s"]) == (500, 50, 250.0)


def test_batches_that_a_sampler_shares_out_are_not_added() -> None:
    """What rank 0 was told is what all ranks trained."""
    assert joint_run(plan("elche"), RUNS) == RUNS[0]


@pytest.mark.parametrize(("link_mbit", "exchange_batches"), [(None, 0.0), (10.0, 20.0)])
def test_the_pace_follows_from_a_probe_and_the_link(
    link_mbit: float | None, exchange_batches: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 10 batches a second, 20 Mbit over 10 Mbit/s last as long as 20 batches."""
    probe = run_of(samples=100, seconds=1.0) | {"model_bytes": 2_500_000}
    monkeypatch.setattr(Bench, "measure", lambda *_: probe)
    bench = Bench(
        workload="cnn",
        cores=(0, 1),
        slow=(),
        hosts=None,
        link_mbit=link_mbit,
        folder=Path(),
        timeout_s=1.0,
    )
    assert bench.pace(seconds=30.0, quotas=(0.5,)) == Pace(
        batches=100, quotas=(0.5,), exchange_batches=exchange_batches
    )


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
