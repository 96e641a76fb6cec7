"""States of optimizers that ranks have kept, for as many ranks and for others."""

from __future__ import annotations

from typing import Any

import numpy as np

from lightning_elche.ops.kept_states import groups_for_rank, states_for_rank
from lightning_elche.ops.tensor_state import join_state
from lightning_elche.partition.image import HostTensor
from lightning_elche.partition.store_ranks import KEPT
from lightning_elche.partition.tree import TensorRef, encode_tree

GROUPS = {
    "model": {"w": HostTensor.of("w", np.ones(2, dtype=np.float32))},
    "optimizer-0@r0": {
        "w.m": HostTensor.of("w.m", np.array([1.0, 2.0], dtype=np.float32)),
        "w.step": HostTensor.of("w.step", np.array(3.0, dtype=np.float32)),
    },
    "optimizer-0@r1": {
        "w.m": HostTensor.of("w.m", np.array([2.0, 6.0], dtype=np.float32)),
        "w.step": HostTensor.of("w.step", np.array(5.0, dtype=np.float32)),
        "b.m": HostTensor.of("b.m", np.array([9.0], dtype=np.float32)),
    },
}


def tree() -> bytes:
    return encode_tree({"optimizer_states": [nodes(0)], KEPT: {"1": [nodes(1)]}}).data


def nodes(rank: int) -> dict[str, Any]:
    group = f"optimizer-0@r{rank}"
    return {name: TensorRef(f"{group}/{name}") for name in GROUPS[group]}


def restored(rank: int, world_size: int) -> dict[str, Any]:
    names = groups_for_rank(GROUPS, rank=rank, world_size=world_size)
    read = {name: GROUPS[name] for name in names}
    own = states_for_rank(tree(), read, rank=rank, world_size=world_size)
    state = join_state(*own)
    assert KEPT not in state
    return {name: value.tolist() for name, value in state["optimizer_states"][0].items()}


def test_as_many_ranks_get_their_own() -> None:
    """And read no more than that."""
    assert restored(0, 2) == {"w.m": [1.0, 2.0], "w.step": 3.0}
    assert restored(1, 2) == {"w.m": [2.0, 6.0], "w.step": 5.0, "b.m": [9.0]}
    assert groups_for_rank(GROUPS, rank=1, world_size=2) == ["model", "optimizer-0@r1"]


def test_any_other_number_gets_the_mean_and_the_largest_count() -> None:
    """Of the state with most tensors; one that a rank does not have is that of the others."""
    expected = {"w.m": [1.5, 4.0], "w.step": 5.0, "b.m": [9.0]}
    assert restored(0, 1) == expected
    assert restored(2, 3) == expected


def test_state_that_all_ranks_share_is_left_alone() -> None:
    """There is nothing to choose."""
    groups = {"model": GROUPS["model"]}
    own = states_for_rank(b"{}", groups, rank=1, world_size=3)
    assert own == (b"{}", groups)
