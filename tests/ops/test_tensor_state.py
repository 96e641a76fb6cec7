"""A state is split into tensors and a tree, and joined again."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import nn

from lightning_elche.ops.arena import Arena
from lightning_elche.ops.tensor_state import join_state, split_state
from lightning_elche.partition.checkpoint_errors import UnsupportedState


def round_trip(state: dict[str, Any]) -> dict[str, Any]:
    split = split_state(state)
    copies = Arena().put(split.groups)
    groups = {name: {one.name: one for one in own} for name, own in copies.items()}
    return join_state(split.tree, groups)


def test_tensors_are_grouped_and_named() -> None:
    """Parameters of optimizers by their names where these are known, by number else."""
    one = torch.zeros(1)
    state = {
        "state_dict": {"a.w": one},
        "optimizer_states": [{"state": {0: {"m": one + 1}, 1: {"m": one + 2}}, "param_groups": []}],
        "callbacks": {"x/y": {"best": one + 3}},
    }
    groups = split_state(state, parameters=[["a.w"]]).groups
    assert {name: [tensor.name for tensor in own] for name, own in groups.items()} == {
        "model": ["a.w"],
        "optimizer-0": ["a.w.m", "1.m"],
        "aux": ["/callbacks/x~1y/best"],
    }


@pytest.mark.parametrize(
    "dtype",
    [
        torch.float64,
        torch.bfloat16,
        torch.float8_e5m2,
        torch.float8_e4m3fnuz,
        torch.complex64,
        torch.complex128,
        torch.int8,
        torch.uint16,
        torch.bool,
    ],
)
def test_tensor_of_any_type_comes_back(dtype: torch.dtype) -> None:
    """Also one without a code in the file format, and one without elements."""
    tensor = torch.tensor([[0.0, 1.0, 3.0]]).to(dtype)
    back = round_trip({"state_dict": {"w": tensor, "e": tensor[:, :0]}})["state_dict"]
    assert (back["w"].dtype, back["e"].shape) == (dtype, (1, 0))
    assert torch.equal(back["w"].view(torch.uint8), tensor.view(torch.uint8))


def test_views_come_back_in_order() -> None:
    """Transposed, strided, conjugated, and scalars."""
    base = torch.arange(6.0).reshape(2, 3)
    odd = {"t": base.T, "s": base[:, ::2], "c": (base + 1j).conj(), "n": base[1, 2]}
    back = round_trip({"state_dict": odd})["state_dict"]
    assert all(torch.equal(back[name], tensor) for name, tensor in odd.items())


def test_tied_weights_are_stored_once_and_stay_tied() -> None:
    """They share their memory after a round trip, too."""
    first = nn.Linear(2, 2, bias=False)
    tied = nn.Sequential(first, nn.Linear(2, 2, bias=False))
    tied[1].weight = first.weight
    split = split_state({"state_dict": tied.state_dict()})
    assert [one.alias_of for one in split.groups["model"]] == [None, "0.weight"]
    back = round_trip({"state_dict": tied.state_dict()})["state_dict"]
    assert back["0.weight"].data_ptr() == back["1.weight"].data_ptr()


def test_types_of_torch_and_versions_of_modules_come_back() -> None:
    """Versions are an attribute of the dict, which modules ask for when they are loaded."""
    state = nn.BatchNorm1d(2).state_dict()
    rest = {"d": torch.float16, "on": torch.device("cuda:1"), "size": torch.Size([2, 3])}
    back = round_trip({"state_dict": state, "rest": rest})
    assert back["rest"] == rest
    assert isinstance(back["state_dict"], OrderedDict)
    assert back["state_dict"]._metadata == state._metadata  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("tensor", "told"),
    [
        (torch.eye(2).to_sparse(), "sparse"),
        (torch.empty(1, device="meta"), "meta"),
        (torch.ones(1).as_subclass(type("Own", (torch.Tensor,), {})), "Own"),
    ],
)
def test_tensor_that_cannot_be_stored_is_named(tensor: torch.Tensor, told: str) -> None:
    """Here it is below a key with a slash."""
    with pytest.raises(UnsupportedState, match=rf"/state_dict/a~1b is of type .*{told}"):
        split_state({"state_dict": {"a/b": tensor}})


def test_tree_that_names_no_tensor_is_refused() -> None:
    """The name is told."""
    with pytest.raises(ValueError, match="'model/w', which is not there"):
        join_state(b'{"state_dict":{"w":{"$t":"model/w"}}}', {})
