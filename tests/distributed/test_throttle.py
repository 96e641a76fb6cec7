"""How far a rank may get ahead."""

from __future__ import annotations

import pytest

from lightning_elche.distributed.throttle import Throttle
from tests.distributed.threads import stores_of


def is_ahead(throttle: Throttle, steps: int) -> bool:
    """Post the steps, as a rank does after each, and return whether it must wait."""
    throttle.post(steps, is_drained=False)
    return throttle.is_ahead(steps)


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
    assert not is_ahead(fast, max_batch_diff)
    assert is_ahead(fast, max_batch_diff + 1)
    assert not is_ahead(slow, 1)
    assert not is_ahead(fast, max_batch_diff + 1)


def test_nobody_waits_for_a_rank_without_data() -> None:
    """A drained rank makes no steps that one could wait for."""
    fast, slow = throttles_of(0)
    slow.post(0, is_drained=True)
    assert not is_ahead(fast, 1000)


def test_slowest_of_several_ranks_counts() -> None:
    """One rank far behind is enough to hold the others back."""
    fast, middle, _ = throttles_of(2, world_size=3)
    assert is_ahead(middle, 10)
    assert is_ahead(fast, 3)


def test_averaging_starts_the_count_anew() -> None:
    """What was ahead in one window is not in the next."""
    fast, _ = throttles_of(2)
    assert is_ahead(fast, 3)
    fast.start(1)
    assert not is_ahead(fast, 2)


def test_counts_of_old_windows_are_deleted() -> None:
    """Once nobody can ask for them: a long run does not fill the store."""
    store = stores_of(1)[0]
    throttle = Throttle(store, rank=0, world_size=2, max_batch_diff=2)
    for index in range(4):
        throttle.start(index)
        throttle.post(1, is_drained=False)
    assert [store.value(f"steps/{index}/0") for index in range(4)] == [None, None, "1", "1"]
