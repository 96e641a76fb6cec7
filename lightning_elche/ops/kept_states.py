"""States of optimizers that each rank has kept for itself, for ranks that go on from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lightning_elche.contracts.runfolder.checkpoint_format import OPTIMIZER
from lightning_elche.ops.tensor_types import host_to_tensor
from lightning_elche.partition.image import HostTensor
from lightning_elche.partition.store_ranks import KEPT, OPTIMIZERS
from lightning_elche.partition.tree import subtree, with_subtree, without_subtree

__all__ = ["groups_for_rank", "states_for_rank"]

Group = Mapping[str, HostTensor]


def states_for_rank(
    tree: bytes, groups: Mapping[str, Group], *, rank: int, world_size: int
) -> tuple[bytes, dict[str, Group]]:
    """Return tree and groups of a state with the states of optimizers for one rank.

    As many ranks as have saved get their own back. For any other number all get the mean; counts,
    such as that of the steps, take the maximum.

    Args:
        tree: As in `SplitState`.
        groups: The groups of the checkpoint, at least those that `groups_for_rank` names.
        rank: The rank that goes on.
        world_size: The number of ranks that do.
    """
    owners = _owners(groups)
    if not owners:
        return tree, dict(groups)
    is_own = owners in ([rank], list(range(world_size)))
    # Of unlike states the one with most tensors: a rank may not have stepped all parameters.
    taken = rank if is_own else max(owners, key=lambda owner: _num_tensors(groups, owner))
    others = subtree(tree, KEPT)
    if isinstance(others, dict) and str(taken) in others:
        tree = with_subtree(tree, OPTIMIZERS, others[str(taken)])
    wanted = {name: group for name, group in groups.items() if "@" not in name}
    for name in _names(groups, taken):
        of_all = [groups[other] for other in _alike(groups, name)]
        wanted[name] = groups[name] if is_own else _merged(groups[name], of_all)
    return without_subtree(tree, KEPT), wanted


def groups_for_rank(groups: Iterable[str], *, rank: int, world_size: int) -> list[str]:
    """Return the groups of a checkpoint that `states_for_rank` needs.

    Args:
        groups: The names of all.
        rank: The rank that goes on.
        world_size: The number of ranks that do.
    """
    names = list(groups)
    if _owners(names) != list(range(world_size)):
        return names
    return [name for name in names if "@" not in name or name.endswith(f"@r{rank}")]


def _owners(groups: Iterable[str]) -> list[int]:
    found = map(OPTIMIZER.fullmatch, groups)
    return sorted({int(one[2]) for one in found if one is not None and one[2] is not None})


def _names(groups: Mapping[str, Group], owner: int) -> list[str]:
    return [name for name in groups if name.endswith(f"@r{owner}")]


def _alike(groups: Mapping[str, Group], name: str) -> list[str]:
    """Return the names of the states of one optimizer on all ranks."""
    prefix = f"{name.partition('@')[0]}@"
    return [other for other in groups if other.startswith(prefix)]


def _num_tensors(groups: Mapping[str, Group], owner: int) -> int:
    return sum(len(groups[name]) for name in _names(groups, owner))


def _merged(base: Group, of_all: Sequence[Group]) -> dict[str, HostTensor]:
    merged = {}
    for name, one in base.items():
        alike = [group[name] for group in of_all if name in group]
        same = [host_to_tensor(other) for other in alike if other.shape == one.shape]
        merged[name] = _with_bytes(one, _merge(name, same))
    return merged


def _merge(name: str, tensors: Sequence[Tensor]) -> Tensor:
    stacked = torch.stack(list(tensors))
    if name.endswith(".step") or not (stacked.is_floating_point() or stacked.is_complex()):
        return stacked.amax(0)
    wide = torch.complex128 if stacked.is_complex() else torch.float64
    return stacked.to(wide).mean(0).to(stacked.dtype)


def _with_bytes(one: HostTensor, tensor: Tensor) -> HostTensor:
    data = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
    return replace(one, data=data)
