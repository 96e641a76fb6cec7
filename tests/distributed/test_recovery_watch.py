"""Spoiled ranks at an averaging event."""

from __future__ import annotations

import math
from typing import NoReturn

import pytest

from lightning_elche.control.events import AveragingEvent
from lightning_elche.exceptions import RecoveryHalted
from tests.distributed.meeting import Rank, meet, ranks_of
from tests.distributed.threads import outcomes_of


class Keeper:
    """Keeps the outcome of the event that it is told to, and goes back to it."""

    def __init__(self, rank: Rank, *, event: int = -1, saved: float | None = None) -> None:
        self._saved = saved
        self._rank = rank
        self._event = event
        self._kept = rank.parameter.clone()
        self.num_settled = 0
        rank.rounds.recovery.source = self

    def settle(self) -> None:
        self.num_settled += 1

    def restorable_event(self) -> int:
        return self._event

    def restore_event(self, index: int) -> None:
        self._rank.parameter.copy_(self._kept)

    def restore_saved(self) -> bool:
        if self._saved is not None:
            self._rank.parameter.fill_(self._saved)
        return self._saved is not None

    def halt(self, reason: str) -> NoReturn:
        raise RecoveryHalted(reason, step=0, level=4, rank=self._rank.rounds.rank)


def spoil(rank: Rank) -> None:
    rank.parameter.fill_(math.nan)
    rank.rounds.window.sits_out = True


def trained(world_size: int = 2) -> list[Rank]:
    ranks = ranks_of(world_size)
    for rank in ranks:
        rank.train(10)
    return ranks


def values(ranks: list[Rank]) -> list[float]:
    return [rank.parameter.item() for rank in ranks]


def test_rank_that_sits_out_adopts_the_average_of_the_others() -> None:
    """And it takes part again in the next one."""
    ranks = trained(3)
    spoil(ranks[0])
    assert meet(ranks)[0].restored_event == -1
    assert values(ranks) == [1.5] * 3
    assert not ranks[0].rounds.window.sits_out


def test_all_ranks_go_back_if_none_is_left() -> None:
    """To the latest event that each of them can restore."""
    ranks = trained()
    for rank, event in zip(ranks, (4, 3), strict=True):
        rank.parameter.fill_(7.0)
        Keeper(rank, event=event)
        spoil(rank)
    assert [event.restored_event for event in meet(ranks)] == [3, 3]
    assert values(ranks) == [7.0, 7.0]
    assert [rank.rounds.window.sits_out for rank in ranks] == [False, False]


def test_all_ranks_go_back_from_an_average_that_is_not_finite() -> None:
    """One that nobody has noticed before; the distance to it is not reported."""
    ranks = trained()
    for rank in ranks:
        rank.parameter.fill_(7.0)
        Keeper(rank, event=3)
    ranks[1].parameter.fill_(math.inf)
    assert [event.restored_event for event in meet(ranks)] == [3, 3]
    assert values(ranks) == [7.0, 7.0]
    assert math.isnan(meet(ranks)[0].divergence)


def test_ranks_with_nothing_in_common_halt_together() -> None:
    """One of them has no event to go back to."""
    ranks = trained()
    for rank, event in zip(ranks, (4, -1), strict=True):
        Keeper(rank, event=event)
        spoil(rank)
    results = outcomes_of(2, lambda rank: ranks[rank].rounds.average(is_drained=False))
    assert [type(result) for result in results] == [RecoveryHalted] * 2
    assert "no earlier event that all ranks could go back to" in str(results[0])


def test_ranks_with_nothing_in_common_take_a_checkpoint() -> None:
    """If they have one."""
    ranks = trained()
    for rank, event in zip(ranks, (4, -1), strict=True):
        Keeper(rank, event=event, saved=5.0)
        spoil(rank)
    assert [event.restored_event for event in meet(ranks)] == [-2, -2]
    assert values(ranks) == [5.0, 5.0]
    assert not ranks[0].rounds.window.sits_out


def test_ranks_without_a_step_are_not_spoiled() -> None:
    """Nobody weighs anything, and nobody sits out."""
    ranks = ranks_of()
    for rank in ranks:
        Keeper(rank, event=3)
    assert [event.restored_event for event in meet(ranks)] == [-1, -1]
    assert values(ranks) == [0.0, 1.0]


def test_rank_stays_out_where_nobody_could_repair_it() -> None:
    """Without a source its parameters do not count until there is an average to adopt."""
    ranks = trained()
    for rank in ranks:
        spoil(rank)
    meet(ranks)
    assert ranks[0].rounds.window.sits_out
    ranks[1].rounds.window.sits_out = False
    ranks[1].parameter.fill_(2.0)
    for rank in ranks:
        rank.train(1)
    meet(ranks)
    assert values(ranks) == [2.0, 2.0]


def test_rank_that_has_trained_nothing_heals_those_that_are_spoiled() -> None:
    """It holds what all held after the last event, and nobody goes back further."""
    ranks = ranks_of(3)
    for rank in ranks:
        Keeper(rank, event=3)
    spoil(ranks[1])
    assert [event.restored_event for event in meet(ranks)] == [-1] * 3
    assert values(ranks) == [1.0] * 3
    assert not ranks[1].rounds.window.sits_out


def test_rank_is_settled_before_it_reports() -> None:
    """What it takes back then does not weigh."""
    ranks = trained()
    keeper = Keeper(ranks[0])
    keeper.settle = lambda: ranks[0].rounds.window.forget(10)  # type: ignore[method-assign]
    events = meet(ranks)
    assert [report.weight for report in events[0].reports] == [0.0, 40.0]
    assert values(ranks) == [1.0, 1.0]


@pytest.mark.parametrize("holder", [0, 1])
def test_anchor_does_not_grow_while_a_rank_holds_it(holder: int) -> None:
    """However much the exchange costs."""
    ranks = trained()
    meet(ranks)
    ranks[holder].rounds.recovery.holds_anchor = True
    assert [_dear(ranks).plan.anchor for _ in range(2)] == [10, 10]
    ranks[holder].rounds.recovery.holds_anchor = False
    assert _dear(ranks).plan.anchor > 10


def _dear(ranks: list[Rank]) -> AveragingEvent:
    """Let the ranks meet at an event before which they exchanged for a second."""
    for rank in ranks:
        rank.train(10)
        rank.rounds._cost_ms = (0.0, 1000.0)
    return meet(ranks)[0]
