"""How far a rank may get ahead."""

from __future__ import annotations

import pytest

from lightning_elche.distributed.throttle import Throttle
from tests.distributed.threads import stores_of


def throttles_of(max_batch_diff: int, world_size: int = 2) -> list[Throttle]:
    """Return one throttle per rank."""
    return [
        Throttle(store, rank=rank, world_size=world_size, max_batch_diff=max_batch_diff)
        for rank, store in enumerate(stores_of(world_size))
    ]


@pytest.mark.parametrize("max_batch_diff", [0, 3])
def test_rank_waits_when_it_is_further_ahead_than_allowed(max_batch_diff: int) -> None:
    """It may make so many steps more than the slowest, and goes on when that one has followed."""
    fast, slow = throttles_of(max_batch_diff)
    assert not fast.is_ahead(max_batch_diff, is_drained=False)
    assert fast.is_ahead(max_batch_diff + 1, is_drained=False)
    assert not slow.is_ahead(1, is_drained=False)
    assert not fast.is_ahead(max_batch_diff + 1, is_drained=False)


def test_nobody_waits_for_a_rank_without_data() -> None:
    """A drained rank makes no steps that one could wait for."""
    fast, slow = throttles_of(0)
    assert not slow.is_ahead(0, is_drained=True)
    assert not fast.is_ahead(1000, is_drained=False)


def test_slowest_of_several_ranks_counts() -> None:
    """One rank far behind is enough to hold the others back."""
    fast, middle, _ = throttles_of(2, world_size=3)
    assert middle.is_ahead(10, is_drained=False)
    assert fast.is_ahead(3, is_drained=False)


def test_averaging_starts_the_count_anew() -> None:
    """What was ahead in one window is not in the next."""
    fast, _ = throttles_of(2)
    assert fast.is_ahead(3, is_drained=False)
    fast.start(1)
    assert not fast.is_ahead(2, is_drained=False)
