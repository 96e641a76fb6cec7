"""Wishes to abort, heard before parameters are averaged."""

from __future__ import annotations

import math
from typing import NoReturn

from lightning_elche.control.requests import Requests, StopCause
from tests.distributed.meeting import Rank, ranks_of
from tests.distributed.threads import outcomes_of


class Agreed(Exception):
    """What the ranks have agreed on."""


class Source:
    """Wants an abort with a code, if that is not 0."""

    def __init__(self, name: str, code: int) -> None:
        self._name = name
        self._code = code

    def pending_abort(self, *, settle: bool = False) -> int:
        return self._code

    def words(self) -> str:
        return f"{self._name} says {self._code}"

    def raise_agreed(self, code: int, rank: int, words: str) -> NoReturn:
        raise Agreed(self._name, code, rank, words)


def ranks_with(*codes: tuple[int, int]) -> list[Rank]:
    """Return ranks with two sources each, which want these codes."""
    ranks = ranks_of(len(codes))
    for rank, (gate, recovery) in zip(ranks, codes, strict=True):
        rank.rounds.aborts.attach(Source("gate", gate))
        rank.rounds.aborts.attach(Source("recovery", recovery))
        rank.train(10)
    return ranks


def raised(ranks: list[Rank]) -> list[tuple[object, ...]]:
    results = outcomes_of(2, lambda rank: ranks[rank].rounds.average(is_drained=False))
    return [result.args for result in results if isinstance(result, Agreed)]


def test_source_of_the_same_kind_raises_on_every_rank() -> None:
    """With the code and the words of the one that wants it."""
    assert raised(ranks_with((0, 0), (0, 40))) == [("recovery", 40, 1, "recovery says 40")] * 2


def test_largest_code_counts() -> None:
    """Of all sources on all ranks, and then that of the lowest rank."""
    assert raised(ranks_with((27, 0), (27, 40))) == [("recovery", 40, 1, "recovery says 40")] * 2
    assert raised(ranks_with((27, 0), (27, 0))) == [("gate", 27, 0, "gate says 27")] * 2


def test_ranks_that_want_nothing_average() -> None:
    """And each rank knows whether it wants something itself."""
    ranks = ranks_with((0, 0), (0, 0))
    assert raised(ranks) == []
    assert ranks[0].parameter.item() == ranks[1].parameter.item() == 0.5
    assert [rank.rounds.aborts.is_pending for rank in ranks_with((0, 40), (0, 0))] == [True, False]


def test_abort_comes_before_a_stop_and_before_healing() -> None:
    """Nothing is averaged, although one rank is to stop and the other one is spoiled."""
    ranks, wanted = ranks_with((27, 0), (0, 0)), Requests(stop=StopCause.SIGTERM)
    ranks[1].parameter.fill_(math.nan)
    ranks[1].rounds.window.sits_out = True
    results = outcomes_of(
        2, lambda rank: ranks[rank].rounds.average(is_drained=False, requests=wanted)
    )
    assert [str(result) for result in results] == [str(Agreed("gate", 27, 0, "gate says 27"))] * 2
    assert (ranks[0].parameter.item(), ranks[1].parameter.isnan().item()) == (0.0, True)
