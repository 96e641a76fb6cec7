"""Tests of a slow rank whose speed changes while it trains."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from bench import Bench, Run
from drift import Drift, drifting, evened, moments_of, time_shares
from plans import Plan


def test_each_quota_gets_the_same_part_after_the_warm_up() -> None:
    """The first of three epochs is the warm-up."""
    assert moments_of(4, seconds=12.0) == [2.0, 4.0, 6.0]


def test_the_quota_changes_once_the_warm_up_is_over(tmp_path: Path) -> None:
    """The second follows the first."""
    begun = tmp_path / "begun"
    with drifting(tmp_path, (0.5, 0.25), [0.0], begun=begun) as changed:
        assert (tmp_path / "cpu.cfs_quota_us").read_text() == "50000"
        begun.touch()
        while not changed:
            threading.Event().wait(0.001)
        assert (tmp_path / "cpu.cfs_quota_us").read_text() == "25000"


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_run_that_ends_early_keeps_its_quota(has_begun: bool, tmp_path: Path) -> None:
    """Nothing waits for what would have come, before the warm-up or after it."""
    begun = tmp_path / "begun"
    with drifting(tmp_path, (0.5, 0.25), [600.0], begun=begun) as changed:
        if has_begun:
            begun.touch()
    assert (changed, (tmp_path / "cpu.cfs_quota_us").read_text()) == ([], "50000")


def test_the_run_before_does_not_count_as_begun(tmp_path: Path) -> None:
    """What it left behind is removed."""
    begun = tmp_path / "begun"
    begun.touch()
    with drifting(tmp_path, (0.5, 0.25), [0.0], begun=begun):
        assert not begun.exists()


@pytest.mark.parametrize(
    ("changed", "shares"),
    [([], [1.0]), ([12.0], [0.2, 0.8]), ([5.0, 15.0], [0.0, 0.5, 0.5]), ([30.0], [1.0, 0.0])],
)
def test_quotas_share_the_measured_time(changed: list[float], shares: list[float]) -> None:
    """What came before or after it does not count."""
    assert time_shares(changed, begun=10.0, ended=20.0) == shares


def test_a_run_at_better_quotas_than_meant_counts_less() -> None:
    """All of the time at a sum of 150, where half of it was meant to be at one of 110."""
    assert evened(150.0, fast=100.0, slow=[50.0, 10.0], shares=[1.0]) == 130.0


def test_the_slow_rank_alone_is_measured_at_each_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its speed is the mean."""

    def measure(_bench: Bench, _plan: Plan) -> Run:
        speed = float((tmp_path / "cpu.cfs_quota_us").read_text())
        return Run(
            samples=1,
            batches=1,
            seconds=1.0,
            samples_per_s=speed,
            model_bytes=1,
            begun=0.0,
            ended=1.0,
            details={},
        )

    monkeypatch.setattr(Bench, "measure", measure)
    bench = Bench(
        workload="cnn",
        cores=(0, 1),
        slow=(),
        hosts=None,
        link_mbit=None,
        folder=tmp_path,
        timeout_s=1.0,
    )
    drift = Drift(group=tmp_path, quotas=(0.5, 0.1), seconds=3.0)
    plan = Plan(name="solo slow", mode="solo", ranks=(1,), batches=(8,))
    run = drift.measure(bench, plan, {})
    assert (run["samples_per_s"], run["samples_per_s_at"]) == (30_000.0, [50_000.0, 10_000.0])
