"""The collectives of a process group, as far as one process can show them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist

from lightning_elche.distributed.collectives import GroupCollectives, is_about_peers
from lightning_elche.distributed.control_store import ControlStore, default_store
from lightning_elche.exceptions import PeerLost, RankFailed
from lightning_elche.testing import run_ranks


class Hanging:
    """A collective that some rank never joins."""

    def is_completed(self) -> bool:
        """Never."""
        return False


@pytest.fixture
def store() -> Iterator[ControlStore]:
    """A control store on the store of a process group of one rank."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield ControlStore(default_store(), "run")
    dist.destroy_process_group()


@pytest.fixture
def collectives(store: ControlStore) -> GroupCollectives:
    """Collectives of this group, with a timeout of a moment."""
    return GroupCollectives(timeout_s=0.05, store=store)


def fail(*_: Any, **__: Any) -> None:
    """Do what a backend does when a connection closes."""
    raise RuntimeError("Connection closed by peer")


def test_numbers_are_gathered_exactly(collectives: GroupCollectives) -> None:
    """Counts up to 2**53 and fractions arrive as they were sent."""
    assert collectives.gather([2.0**53 - 1, 0.1]) == [[9007199254740991.0, 0.1]]


def test_reductions_work_in_place(collectives: GroupCollectives) -> None:
    """The tensor itself is replaced."""
    tensor = torch.tensor([3, -1])
    collectives.sum_(tensor)
    collectives.max_(tensor)
    assert tensor.tolist() == [3, -1]


def swap_and_join() -> tuple[list[list[float]], list[float]]:
    dist.init_process_group("gloo")
    collectives = GroupCollectives(timeout_s=30.0, store=ControlStore(default_store(), "run"))
    rank = collectives.rank
    mine = torch.arange(6.0).bfloat16() + 10.0 * rank
    pair = torch.tensor([2.0 * rank, 2.0 * rank + 1.0]).bfloat16()
    swapped = collectives.swap_parts(mine)
    joined = collectives.join_parts(pair)
    dist.destroy_process_group()
    return swapped.tolist(), joined.tolist()


@pytest.mark.slow
def test_parts_are_swapped_and_joined_in_rank_order() -> None:
    """Rank r gets the r-th part of every rank; joined tensors are the same everywhere."""
    ranks = [rank.value for rank in run_ranks(swap_and_join, world_size=3)]
    assert [swapped for swapped, _ in ranks] == [
        [[0.0, 1.0], [10.0, 11.0], [20.0, 21.0]],
        [[2.0, 3.0], [12.0, 13.0], [22.0, 23.0]],
        [[4.0, 5.0], [14.0, 15.0], [24.0, 25.0]],
    ]
    assert [joined for _, joined in ranks] == [[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]] * 3


def sums_by_scope() -> tuple[list[int], list[list[float]], float, float, list[list[float]]]:
    dist.init_process_group("gloo")
    collectives = GroupCollectives(
        timeout_s=30.0, store=ControlStore(default_store(), "run"), node=dist.get_rank() % 2
    )
    inside, across = (torch.tensor([2.0**collectives.rank]) for _ in range(2))
    with collectives.scope(crosses_nodes=False):
        collectives.sum_(inside)
        gathered = collectives.gather([collectives.rank])
    collectives.sum_(across)
    all_gathered = collectives.gather([collectives.rank])
    dist.destroy_process_group()
    return list(collectives.nodes), gathered, inside.item(), across.item(), all_gathered


@pytest.mark.slow
def test_nodes_exchange_among_themselves() -> None:
    """Ranks 0 and 2 share a node, rank 1 is alone on its own; then all exchange again."""
    ranks = [rank.value for rank in run_ranks(sums_by_scope, world_size=3)]
    whole = (7.0, [[0.0], [1.0], [2.0]])
    assert ranks == [
        ([0, 1, 0], [[0.0], [2.0]], 5.0, *whole),
        ([0, 1, 0], [[1.0]], 2.0, *whole),
        ([0, 1, 0], [[0.0], [2.0]], 5.0, *whole),
    ]


def test_peer_that_does_not_arrive_is_lost(
    collectives: GroupCollectives, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waiting ends after the timeout with an error that names the parameter."""
    monkeypatch.setattr(dist, "all_gather", lambda *_, **__: Hanging())
    with pytest.raises(PeerLost, match=r"within `timeout_s`=0.05"):
        collectives.gather([1.0])


def test_failure_of_a_peer_ends_the_wait(
    collectives: GroupCollectives, store: ControlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rank at an event hears of a failure before the timeout."""
    monkeypatch.setattr(dist, "all_gather", lambda *_, **__: Hanging())
    store.post_failure(3, "ValueError: no")
    with pytest.raises(RankFailed, match="Rank 3 failed"):
        collectives.gather([1.0])


@pytest.mark.parametrize("call", ["gather", "sum_", "max_", "swap_parts", "join_parts"])
def test_closed_connection_means_a_lost_peer(
    call: str, collectives: GroupCollectives, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the backend raises becomes an error that a caller can catch."""
    monkeypatch.setattr(dist, "all_gather", fail)
    monkeypatch.setattr(dist, "all_reduce", fail)
    monkeypatch.setattr(dist, "all_to_all_single", fail)
    argument: Any = [1.0] if call == "gather" else torch.ones(1)
    with pytest.raises(PeerLost, match="Connection closed by peer"):
        getattr(collectives, call)(argument)


def test_closed_connection_is_explained_by_the_failure_of_a_peer(
    collectives: GroupCollectives, store: ControlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The peer's own error tells more than the connection that it closed."""
    monkeypatch.setattr(dist, "all_reduce", fail)
    store.post_failure(1, "ValueError: no")
    with pytest.raises(RankFailed, match="ValueError: no"):
        collectives.sum_(torch.ones(1))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("[gloo/transport/tcp/pair.cc:537] Connection reset by peer"), True),
        (dist.DistBackendError("NCCL error"), True),
        (RuntimeError("Unsupported dtype"), False),
        (PeerLost((1,), "rank 1 is gone; gloo/transport"), False),
    ],
)
def test_errors_about_peers_are_told_from_those_about_values(
    error: RuntimeError, expected: bool
) -> None:
    """So that a wrong call does not look like a lost peer."""
    assert is_about_peers(error) is expected
