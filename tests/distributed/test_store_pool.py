"""The chunk pool on the store."""

from __future__ import annotations

import pytest

from lightning_elche.control.chunks import Chunk
from lightning_elche.distributed.store_pool import StorePool
from tests.distributed.threads import run_ranks, stores_of


def pools_of(world_size: int, *, total: int, name: str = "0") -> list[StorePool]:
    """Return every rank's view of one pool."""
    stores = stores_of(world_size)
    return [StorePool(store, name, total=total, world_size=world_size) for store in stores]


def test_reserved_batches_are_not_in_the_pool() -> None:
    """The first batch of each rank is set aside."""
    assert pools_of(3, total=10)[0].remaining() == 7


def test_claims_of_two_ranks_are_consecutive() -> None:
    """Claims take neighbouring slices, whoever makes them."""
    one, other = pools_of(2, total=10)
    assert [one.claim(3), other.claim(2), one.remaining()] == [Chunk(2, 5), Chunk(5, 7), 3]


def test_claim_is_cut_at_the_end() -> None:
    """A claim beyond the end takes what is left, the next ones nothing."""
    one, other = pools_of(2, total=5)
    assert [one.claim(9), len(other.claim(9)), other.remaining()] == [Chunk(2, 5), 0, 0]


def test_pools_of_two_epochs_do_not_meet() -> None:
    """Another name is another cursor."""
    store = stores_of(1)[0]
    StorePool(store, "0", total=9, world_size=2).claim(7)
    assert StorePool(store, "1", total=9, world_size=2).remaining() == 7


@pytest.mark.parametrize("size", [1, 7])
def test_every_batch_is_claimed_once_by_threads(size: int) -> None:
    """Ranks that claim at the same time share the pool without overlap or gap."""
    pools = pools_of(4, total=404)

    def claim_all(rank: int) -> list[int]:
        taken: list[int] = []
        while chunk := pools[rank].claim(size):
            taken.extend(range(chunk.start, chunk.stop))
        return taken

    claimed = run_ranks(4, claim_all)
    assert sorted(index for own in claimed for index in own) == list(range(4, 404))
