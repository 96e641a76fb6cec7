"""All ranks exchange, or none does."""

from __future__ import annotations

import pytest

from lightning_elche.distributed.ballot import Ballot
from lightning_elche.exceptions import PeerLost
from tests.distributed.threads import FakeClock, stores_of


def ballots_of(world_size: int = 2) -> tuple[list[Ballot], FakeClock]:
    """Return one ballot per rank, with a patience of 5 s, and their common clock."""
    clock = FakeClock()
    ballots = [
        Ballot(store, world_size=world_size, patience_s=5.0, timeout_s=60.0, clock=clock)
        for store in stores_of(world_size)
    ]
    return ballots, clock


def test_all_exchange_once_all_snapshots_are_there() -> None:
    """The last rank to hand in decides for all."""
    (first, second), _ = ballots_of()
    first.join(0)
    assert first.is_complete() is None
    second.join(0)
    assert (second.is_complete(), first.is_complete()) == (True, True)
    assert (first.close(0), second.close(1)) == (0, 0)


def test_late_rank_joins_the_next_attempt() -> None:
    """The rank that comes after a drop finds the attempt at which the others are."""
    (first, second), clock = ballots_of()
    first.join(0)
    clock.now += 5.1
    assert first.is_complete() is False
    first.join(0)
    second.join(0)
    assert (first.is_complete(), second.is_complete()) == (True, True)
    assert (first.close(0), second.close(1)) == (1, 1)


def test_drop_beats_a_rank_that_completes_too_late() -> None:
    """What was decided first counts, also for the rank that would have been the last."""
    (first, second), clock = ballots_of()
    first.join(0)
    clock.now += 4.0
    second_sees = second._store.value("snapshots/0/0/verdict")
    clock.now += 1.1
    assert first.is_complete() is False
    assert second_sees is None  # it looked before the drop and hands in after it
    second._index, second._attempt, second._began, second._joined = 0, 0, 0.0, clock.now
    second._store.add("snapshots/0/0", 1)
    assert second.is_complete() is False


def test_missing_rank_is_lost_after_the_timeout() -> None:
    """Attempts are not repeated for ever."""
    (first, _), clock = ballots_of()
    for _ in range(11):
        first.join(0)
        clock.now += 5.1
        assert first.is_complete() is False
    first.join(0)
    clock.now += 5.1
    with pytest.raises(PeerLost, match="`timeout_s`=60"):
        first.is_complete()


def test_events_do_not_share_their_attempts() -> None:
    """A closed event leaves nothing behind for the next one."""
    (first, second), _ = ballots_of()
    for index in (0, 1):
        first.join(index)
        assert first.is_complete() is None
        second.join(index)
        assert (first.is_complete(), second.is_complete()) == (True, True)
        assert (first.close(0), second.close(1)) == (0, 0)
