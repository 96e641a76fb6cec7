"""The collectives of a process group, as far as one process can show them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist

from lightning_elche.distributed.collectives import GroupCollectives
from lightning_elche.distributed.control_store import ControlStore, default_store
from lightning_elche.exceptions import PeerLost, RankFailed


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


@pytest.mark.parametrize("call", ["gather", "sum_", "max_"])
def test_closed_connection_means_a_lost_peer(
    call: str, collectives: GroupCollectives, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the backend raises becomes an error that a caller can catch."""
    monkeypatch.setattr(dist, "all_gather", fail)
    monkeypatch.setattr(dist, "all_reduce", fail)
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
