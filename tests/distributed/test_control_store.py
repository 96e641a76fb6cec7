"""Counters and flags on the store."""

from __future__ import annotations

import threading

import pytest
from torch.distributed import DistNetworkError, HashStore, Store

from lightning_elche.distributed.control_store import ControlStore
from lightning_elche.exceptions import PeerLost, RankFailed
from tests.distributed.threads import TIMEOUT_S, FakeClock, run_ranks, stores_of


class DeadStore(Store):
    """A store whose host is gone."""

    def add(self, key: str, amount: int) -> int:
        """Fail."""
        raise DistNetworkError(f"cannot add {amount} to {key}")

    def check(self, keys: list[str]) -> bool:
        """Fail."""
        raise DistNetworkError(f"cannot check {keys}")

    def compare_set(self, key: str, expected: str, desired: str) -> bytes:
        """Fail."""
        raise DistNetworkError(f"cannot set {key} from {expected} to {desired}")


def dead_store() -> ControlStore:
    """Return a control store that is cut off."""
    control = ControlStore(HashStore(), "run")
    control._store = DeadStore()
    return control


def failed_stores(clock: FakeClock) -> tuple[ControlStore, HashStore]:
    """Return the store of a rank whose peer has failed, and what both share."""
    shared = HashStore()
    ControlStore(shared, "run").post_failure(1, "ValueError: no")
    return ControlStore(shared, "run", clock=clock), shared


def test_counter_starts_at_zero_and_is_shared() -> None:
    """Every rank adds to the same counter."""
    one, other = stores_of(2)
    assert [one.add("k", 0), one.add("k", 2), other.add("k", 3), one.add("k", 0)] == [0, 2, 5, 5]


def test_counter_loses_nothing_between_threads() -> None:
    """Concurrent additions all count, and each returns another value."""
    stores = stores_of(3)
    values = run_ranks(3, lambda rank: [stores[rank].add("k", 1) for _ in range(200)])
    assert sorted(value for own in values for value in own) == list(range(1, 601))


def test_runs_of_a_process_do_not_meet() -> None:
    """Another prefix is another set of keys."""
    shared = HashStore()
    ControlStore(shared, "first").add("k", 5)
    assert ControlStore(shared, "second").add("k", 0) == 0


def test_first_value_is_kept() -> None:
    """Whoever comes first decides, and later callers learn what was decided."""
    one, other = stores_of(2)
    assert (one.first_value("k", "a"), other.first_value("k", "b")) == ("a", "a")


def test_threads_agree_on_the_first_value() -> None:
    """Of values offered at once every rank gets the same one."""
    stores = stores_of(4)
    assert len(set(run_ranks(4, lambda rank: stores[rank].first_value("k", str(rank))))) == 1


def test_deleted_counter_starts_again() -> None:
    """A deleted key takes no place and counts from zero."""
    store = stores_of(1)[0]
    store.add("k", 5)
    store.delete("k")
    assert store.add("k", 0) == 0


def test_nothing_is_raised_without_a_failure() -> None:
    """A healthy run passes the check."""
    stores_of(1)[0].raise_if_failed(at_once=True)


def test_failure_reaches_other_ranks_with_rank_and_cause() -> None:
    """The error names who failed, and with what."""
    store, _ = failed_stores(FakeClock())
    with pytest.raises(RankFailed, match=r"Rank 1 failed with ValueError: no") as failure:
        store.raise_if_failed()
    assert (failure.value.rank, failure.value.cause) == (1, "ValueError: no")


def test_first_failure_is_kept() -> None:
    """A second failure, often a consequence of the first, does not hide it."""
    store, shared = failed_stores(FakeClock())
    ControlStore(shared, "run").post_failure(2, "RuntimeError: later")
    with pytest.raises(RankFailed, match="ValueError: no"):
        store.raise_if_failed()


def test_store_is_asked_at_most_every_half_second() -> None:
    """Between two checks a failure is not seen, so that a check may run at every step."""
    clock, shared = FakeClock(), HashStore()
    store = ControlStore(shared, "run", clock=clock)
    store.raise_if_failed()
    ControlStore(shared, "run").post_failure(1, "late")
    clock.now = 0.49
    store.raise_if_failed()
    clock.now = 0.5
    with pytest.raises(RankFailed):
        store.raise_if_failed()


def test_store_is_asked_at_once_on_demand() -> None:
    """A rank that looks for a reason does not wait for the next check."""
    store, _ = failed_stores(FakeClock())
    store._next_check = 99.0
    with pytest.raises(RankFailed):
        store.raise_if_failed(at_once=True)


def test_rank_zero_waits_until_all_ranks_know() -> None:
    """The rank that may host the store leaves after all others have taken notice."""
    stores, order = stores_of(3), []

    def run(rank: int) -> None:
        stores[rank].wait_until_known(rank, world_size=3)
        order.append(rank)

    rank_zero = threading.Thread(target=run, args=(0,), daemon=True)
    rank_zero.start()
    run(1)
    run(2)
    rank_zero.join(TIMEOUT_S)
    assert order == [1, 2, 0]


def test_rank_zero_gives_up_on_silent_peers() -> None:
    """Peers that never look, say because they hang, are waited for no longer than 5 seconds."""
    clock = FakeClock(passing_s=2.0)
    ControlStore(HashStore(), "run", clock=clock).wait_until_known(0, world_size=2)
    assert 7.0 <= clock.now <= 8.0  # from the first reading, at 2 seconds


@pytest.mark.parametrize("rank", [1, 2])
def test_other_ranks_do_not_wait_for_those_that_know(rank: int) -> None:
    """Only the rank that may host the store stays; the others look at the clock once."""
    clock = FakeClock(passing_s=1.0)
    ControlStore(HashStore(), "run", clock=clock).wait_until_known(rank, world_size=3)
    assert clock.now == 1.0


@pytest.mark.parametrize(
    "call", ["add", "first_value", "raise_if_failed", "post_failure", "wait_until_known"]
)
def test_dead_store_means_a_lost_peer(call: str) -> None:
    """Every operation on a store without a host raises the error that says so."""
    store = dead_store()
    calls = {
        "add": lambda: store.add("k", 1),
        "first_value": lambda: store.first_value("k", "a"),
        "raise_if_failed": lambda: store.raise_if_failed(),
        "post_failure": lambda: store.post_failure(1, "no"),
        "wait_until_known": lambda: store.wait_until_known(0, world_size=2),
    }
    with pytest.raises(PeerLost, match="does not answer") as lost:
        calls[call]()
    assert lost.value.missing == (0,)
