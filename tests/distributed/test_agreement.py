"""Which ranks have agreed to the next event."""

from __future__ import annotations

import pytest

from lightning_elche.distributed.agreement import Agreement
from lightning_elche.distributed.control_store import ControlStore
from lightning_elche.exceptions import PeerLost, RankFailed
from tests.distributed.threads import FakeClock, outcomes_of, stores_of


def agreements_of(stores: list[ControlStore], clock: FakeClock | None = None) -> list[Agreement]:
    """Return the agreement of every rank, with a timeout of 10 seconds."""
    world_size = len(stores)
    return [
        Agreement(store, rank=r, world_size=world_size, timeout_s=10.0, clock=clock or FakeClock())
        for r, store in enumerate(stores)
    ]


def test_agreement_is_reached_when_the_last_rank_posts() -> None:
    """Before the last rank has agreed nobody may meet, afterwards all may."""
    one, other = agreements_of(stores_of(2))
    one.post()
    assert not one.is_reached()
    other.post()
    assert one.is_reached()
    assert other.is_reached()


def test_agreement_knows_whether_the_own_rank_posted() -> None:
    """A rank agrees once and remembers it until the next event."""
    one, _ = agreements_of(stores_of(2))
    states = [one.is_posted]
    one.post()
    states.append(one.is_posted)
    one.start(1)
    assert [*states, one.is_posted] == [False, True, False]


def test_agreement_to_one_event_is_none_to_the_next() -> None:
    """After an event all ranks have to agree again."""
    agreements = agreements_of(stores_of(2))
    for agreement in agreements:
        agreement.post()
    for agreement in agreements:
        agreement.start(1)
    agreements[0].post()
    assert not agreements[0].is_reached()


def test_keys_of_an_event_are_deleted_after_it() -> None:
    """A long run leaves no trace of past events in the store."""
    stores = stores_of(2)
    agreements = agreements_of(stores)
    for agreement in agreements:
        agreement.post()
    for agreement in agreements:
        agreement.start(1)
    assert [stores[0].add(key, 0) for key in ("agreed/0", "agreed/0/0", "agreed/0/1")] == [0, 0, 0]


def test_wait_ends_with_the_agreement_of_the_last_rank() -> None:
    """A rank without data learns of the agreement while it waits."""
    agreements = agreements_of(stores_of(2))

    def run(rank: int) -> bool:
        agreements[rank].post()
        return agreements[rank].wait(99.0)

    assert outcomes_of(2, run) == [True, True]


def test_wait_of_no_time_does_not_ask() -> None:
    """A rank without patience goes on at once."""
    one, other = agreements_of(stores_of(2))
    one.post()
    other.post()
    assert not one.wait(0.0)


def test_wait_ends_when_the_patience_is_over() -> None:
    """A rank that waits for a moment goes on afterwards."""
    one, _ = agreements_of(stores_of(2), FakeClock(passing_s=1.0))
    one.post()
    assert not one.wait(3.0)


def test_missing_ranks_are_named_after_the_timeout() -> None:
    """The error says which ranks did not agree in time."""
    clock = FakeClock()
    agreements = agreements_of(stores_of(4), clock)
    agreements[0].post()
    agreements[2].post()
    clock.now = 10.1
    with pytest.raises(PeerLost, match=r"Ranks \[1, 3\] did not agree") as lost:
        agreements[0].is_reached()
    assert lost.value.missing == (1, 3)


def test_time_counts_from_the_own_agreement() -> None:
    """A rank that has not agreed itself, or not long ago, waits for nobody too long."""
    clock = FakeClock()
    one, _ = agreements_of(stores_of(2), clock)
    clock.now = 99.0
    assert not one.is_reached()
    one.post()
    clock.now = 109.0
    assert not one.is_reached()


def test_waiting_rank_hears_of_a_failure() -> None:
    """A failed peer ends the wait with its error, not with the timeout."""
    stores = stores_of(2)
    one, _ = agreements_of(stores)
    one.post()
    stores[1].post_failure(1, "ValueError: no")
    with pytest.raises(RankFailed, match="Rank 1 failed with ValueError"):
        one.wait(99.0)
