"""A rank is told what held it up."""

from __future__ import annotations

from typing import Any

import pytest

from lightning_elche.timeline.verdict import RankTimes, idle_ratio, judge, told


def times(rank: int = 0, *, waits: tuple[float, ...] = (), **percent: float) -> RankTimes:
    """A rank that computes all the time but for what is given."""
    totals = {"startup": 50.0, "compute": 100.0 - sum(percent.values()), **percent}
    return RankTimes(rank=rank, device=f"cpu on box{rank}", totals=totals, waits=waits)


def kinds(*ranks: RankTimes) -> list[tuple[int, str]]:
    return [(verdict.rank, verdict.kind) for verdict in judge(ranks, overhead_target=0.07)]


@pytest.mark.parametrize(
    ("cause", "limit", "kind"),
    [
        ("input", 10.0, "input-bound"),
        ("average_transfer", 7.0, "link-bound"),
        ("hooks", 5.0, "hooks-bound"),
        ("checkpoint", 5.0, "checkpoint-bound"),
        ("throttle", 5.0, "throttled"),
        ("other", 2.0, "unexplained"),
    ],
)
def test_cause_is_named_from_its_limit_on(cause: str, limit: float, kind: str) -> None:
    """A little less says nothing; the start does not count."""
    less: dict[str, Any] = {cause: limit - 0.1}
    assert kinds(times(**less)) == []
    assert kinds(times(**{cause: limit})) == [(0, kind)]


def test_slow_rank_is_named_with_its_device() -> None:
    """It hardly waits in four of five events, while another waits a tenth of its time."""
    slow = times(1, waits=(0.0, 0.01, 0.0, 0.5, 0.0))
    fast = times(0, average_wait=10.0, waits=(0.1,) * 5)
    verdicts = judge([fast, slow], overhead_target=0.05)
    assert [verdict.text for verdict in verdicts] == [
        "Rank 1 (cpu on box1) is the straggler: it hardly ever waits, while rank 0 waits 10.0% of "
        "its time for others."
    ]


@pytest.mark.parametrize(("wait", "own"), [(9.0, 0.0), (10.0, 0.1)])
def test_nobody_is_the_straggler_where_all_wait_or_nobody_does(wait: float, own: float) -> None:
    """Rank 1 either holds nobody up, or waits itself."""
    assert kinds(times(0, average_wait=wait, waits=(0.1,)), times(1, waits=(own,))) == []


def test_largest_cause_comes_first() -> None:
    """What to look at first."""
    assert kinds(times(hooks=6.0, input=20.0)) == [(0, "input-bound"), (0, "hooks-bound")]


def test_idle_is_all_but_computing_and_validating() -> None:
    """Of the time without the start."""
    assert idle_ratio(times(validation=20.0, input=10.0, other=5.0)) == pytest.approx(0.15)


def test_rank_that_never_started_is_not_judged() -> None:
    """It has no running time."""
    assert kinds(RankTimes(rank=0, device="cpu", totals={"startup": 5.0})) == []


def test_what_is_true_of_many_ranks_is_said_once() -> None:
    """Who it is worst for is named, with the device; of two, each is."""
    ranks = [times(0, hooks=6.0), times(1, hooks=8.0, input=20.0), times(2, hooks=7.0)]
    assert told(judge(ranks, overhead_target=0.07)) == [
        (
            "input",
            "Rank 1 (cpu on box1) is input-bound: 20.0% of its time went into waiting for data "
            "(more loader workers, or faster storage).",
        ),
        (
            "hooks",
            "3 ranks are hooks-bound, most of all rank 1 (cpu on box1): 6.0% to 8.0% of their time "
            "went into callbacks, logging and the loop around its steps.",
        ),
    ]
    assert len(told(judge(ranks[:2], overhead_target=0.07))) == 3


def test_many_stragglers_are_told_of_together() -> None:
    """By their numbers."""
    slow = [times(rank, waits=(0.0,)) for rank in (1, 2, 4)]
    fast = times(0, average_wait=10.0, waits=(0.1,))
    assert told(judge([fast, *slow], overhead_target=0.07)) == [
        ("average_wait", "Ranks 1, 2, 4 are stragglers: others wait 10.0% of their time.")
    ]
