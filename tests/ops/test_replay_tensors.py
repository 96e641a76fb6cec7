"""Which tensors replay compares, and in which order."""

from __future__ import annotations

import torch
from torch import nn

from lightning_elche.ops.replay_tensors import replay_tensors
from lightning_elche.ops.tensor_state import GroupTensor, split_state
from lightning_elche.partition.image import HostTensor, layout_of
from lightning_elche.partition.image_parts import row_space_of


def test_model_comes_before_optimizers_by_size_of_items_and_name() -> None:
    """The order is that of the files of a checkpoint."""
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, affine=False))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(3, 2)).sum().backward()
    optimizer.step()
    assert list(replay_tensors(model.state_dict(), [optimizer], module=model)) == [
        "model/1.num_batches_tracked",
        "model/0.bias",
        "model/0.weight",
        "model/1.running_mean",
        "model/1.running_var",
        "optimizer-0/0.bias.momentum_buffer",
        "optimizer-0/0.weight.momentum_buffer",
    ]


def test_parameters_that_nobody_names_have_numbers() -> None:
    """They are counted over the groups of the optimizer."""
    params = [nn.Parameter(torch.ones(1)) for _ in range(2)]
    optimizer = torch.optim.Adam([{"params": [param]} for param in params])
    sum(params).backward()  # type: ignore[union-attr]
    optimizer.step()
    names = list(replay_tensors({}, [optimizer]))
    assert names[:2] == ["optimizer-0/0.exp_avg", "optimizer-0/0.exp_avg_sq"]
    assert names[3:4] == ["optimizer-0/1.exp_avg"]


def test_tied_tensors_count_once_and_empty_ones_each() -> None:
    """The first name stays; what is no tensor is left out."""
    weight = torch.ones(2)
    state = {"b": weight, "a": weight, "e": torch.empty(0), "f": torch.empty(0), "extra": 1}
    assert list(replay_tensors(state)) == ["model/b", "model/e", "model/f"]


def test_views_of_one_memory_with_other_shapes_count_each() -> None:
    """Only what is the same tensor under two names is tied."""
    weight = torch.ones(4)
    assert len(replay_tensors({"a": weight, "b": weight[:2], "c": weight.view(2, 2)})) == 3


def test_order_is_that_of_the_rows_of_a_checkpoint() -> None:
    """So that the fingerprints of a record and of a checkpoint can be compared."""
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    state = {"state_dict": model.state_dict(), "optimizer_states": [optimizer.state_dict()]}
    names = [[name for name, _ in model.named_parameters()]]
    groups = split_state(state, parameters=names).groups
    layouts = {
        group: layout_of(group, 1, [host_tensor(one) for one in tensors])
        for group, tensors in groups.items()
    }
    found = replay_tensors(model.state_dict(), [optimizer], module=model)
    assert list(found) == [entry.full_name for entry in row_space_of(layouts).tensors]


def host_tensor(one: GroupTensor) -> HostTensor:
    return HostTensor.of(one.name, one.tensor.numpy(), alias_of=one.alias_of)
