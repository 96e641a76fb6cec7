"""The state of a run, as Lightning saves it: its tensors in groups, and a tree of the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lightning_elche.ops.tensor_types import host_to_tensor, is_storable, memory_of
from lightning_elche.partition.checkpoint_errors import UnsupportedState
from lightning_elche.partition.image import HostTensor
from lightning_elche.partition.tree import (
    Device,
    Dtype,
    Size,
    TensorRef,
    decode_tree,
    encode_tree,
)

__all__ = ["GroupTensor", "SplitState", "join_state", "names_of", "split_state"]

MODEL, OPTIMIZERS, AUX = "state_dict", "optimizer_states", "aux"
# Versions of modules, which `state_dict` has as an attribute.
VERSIONS = "elche.state_dict_versions"
# The type of hyperparameters, which are stored as plain values.
DROPPED = "hparams_type"

ParameterNames = Sequence[Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class GroupTensor:
    """A tensor of a group.

    Attributes:
        name: Within its group.
        tensor: Itself, still the one that training changes.
        alias_of: The tensor of the group with the same memory, shape and strides.
    """

    name: str
    tensor: Tensor
    alias_of: str | None = None


@dataclass(frozen=True, kw_only=True)
class SplitState:
    """A state in two parts.

    Attributes:
        groups: The tensors: "model", "optimizer-0" and so on, and "aux".
        tree: The rest, in which tensors are named.
        dropped: JSON pointers of hyperparameters that cannot be stored.
    """

    groups: Mapping[str, Sequence[GroupTensor]]
    tree: bytes
    dropped: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        """The bytes of all tensors, and of the tree."""
        own = [one.tensor.nbytes for group in self.groups.values() for one in group]
        return sum(own) + len(self.tree)


def split_state(
    state: Mapping[str, Any], *, parameters: ParameterNames = (), owner: int | None = None
) -> SplitState:
    """Separate the tensors of a state from the rest; nothing is copied.

    Cost: O(tensors) Python, some microseconds each.

    Args:
        state: What `Strategy.save_checkpoint` is given.
        parameters: Names of the parameters of each optimizer, in its order; numbers by default.
        owner: The rank whose own the states of optimizers are; `None` if they are those of all.

    Raises:
        UnsupportedState: If there is a value that a checkpoint cannot hold.

    Example:
        >>> split = split_state({"state_dict": {"w": torch.ones(2)}, "epoch": 3})
        >>> split.tree, [one.name for one in split.groups["model"]]
        (b'{"state_dict":{"w":{"$t":"model/w"}},"epoch":3}', ['w'])
    """
    collector = _Collector(parameters, "" if owner is None else f"@r{owner}")
    plain = {key: value for key, value in state.items() if key != DROPPED}
    versions = getattr(state.get(MODEL), "_metadata", None)
    if versions is not None:
        plain[VERSIONS] = versions
    tree = encode_tree(plain, convert=collector.convert)
    dropped = (*tree.dropped, *(f"/{key}" for key in state if key == DROPPED))
    return SplitState(groups=collector.groups, tree=tree.data, dropped=dropped)


def join_state(tree: bytes, groups: Mapping[str, Mapping[str, HostTensor]]) -> dict[str, Any]:
    """Return the state that `split_state` has split, on the CPU and with memory of its own.

    Args:
        tree: As in `SplitState`.
        groups: The tensors by group and name.

    Raises:
        ValueError: If `tree` is not such a tree, or names a tensor that is not there.
    """
    state = decode_tree(tree, revive=_Reviver(groups).revive)
    if not isinstance(state, dict):
        raise ValueError(f"the tree must be that of a state, got one of {type(state).__name__}")
    versions = state.pop(VERSIONS, None)
    if versions is not None:
        state[MODEL]._metadata = versions
    return state


@dataclass
class _Collector:
    parameters: ParameterNames
    suffix: str = ""
    groups: dict[str, list[GroupTensor]] = field(default_factory=lambda: {"model": []})
    _taken: set[str] = field(default_factory=set)
    _owners: dict[tuple[object, ...], str] = field(default_factory=dict)

    def convert(self, path: str, value: object) -> object:
        """Return what is encoded in place of a value of torch."""
        if isinstance(value, Tensor):
            _check(path, value)
            return TensorRef(self._add(path, value))
        if isinstance(value, torch.dtype):
            return Dtype(_short(value))
        if isinstance(value, torch.device):
            return Device(str(value))
        return Size(tuple(value)) if isinstance(value, torch.Size) else value

    def _add(self, path: str, tensor: Tensor) -> str:
        group, name = self._place(path)
        if f"{group}/{name}" in self._taken:
            group, name = AUX, path
        self._taken.add(f"{group}/{name}")
        memory = (group, *memory_of(tensor)) if tensor.numel() else (group, name)
        owner = self._owners.setdefault(memory, name)
        alias_of = None if owner == name else owner
        one = GroupTensor(name=name, tensor=tensor.detach(), alias_of=alias_of)
        self.groups.setdefault(group, []).append(one)
        return f"{group}/{name}"

    def _place(self, path: str) -> tuple[str, str]:
        """Return group and name of the tensor at a JSON pointer."""
        keys = path.split("/")[1:]
        if "~" in path:
            keys = [key.replace("~1", "/").replace("~0", "~") for key in keys]
        if keys[0] == MODEL and len(keys) == 2:
            return "model", keys[1]
        if keys[0] == OPTIMIZERS and len(keys) >= 5 and keys[2] == "state":
            number, parameter = int(keys[1]), keys[3]
            names = self.parameters[number] if number < len(self.parameters) else ()
            if parameter.isdecimal() and int(parameter) < len(names):
                parameter = names[int(parameter)]
            return f"optimizer-{number}{self.suffix}", f"{parameter}.{'/'.join(keys[4:])}"
        return AUX, path


def _check(path: str, tensor: Tensor) -> None:
    if is_storable(tensor):
        return
    kind = type(tensor)
    if kind not in (Tensor, nn.Parameter):
        raise UnsupportedState(path, f"{kind.__module__}.{kind.__qualname__}")
    raise UnsupportedState(path, f"{tensor.layout} tensor of {tensor.dtype} ({tensor.device})")


@dataclass
class _Reviver:
    groups: Mapping[str, Mapping[str, HostTensor]]
    _made: dict[str, Tensor] = field(default_factory=dict)

    def revive(self, value: object) -> object:
        """Return the value of torch that a leaf of the tree stands for."""
        if isinstance(value, TensorRef):
            return self._tensor(value.name)
        if isinstance(value, Dtype):
            dtype = getattr(torch, value.name, None)
            if not isinstance(dtype, torch.dtype):
                raise ValueError(f"{value.name!r} is no data type of this torch")
            return dtype
        if isinstance(value, Device):
            return torch.device(value.name)
        return torch.Size(value.sizes) if isinstance(value, Size) else value

    def _tensor(self, name: str) -> Tensor:
        group, _, own = name.partition("/")
        host = self.groups.get(group, {}).get(own)
        if host is None:
            raise ValueError(f"the tree names the tensor {name!r}, which is not there")
        key = f"{group}/{host.alias_of or own}"
        if key not in self._made:
            self._made[key] = host_to_tensor(host)
        return self._made[key]


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def names_of(parameters: Iterable[Tensor], known: Mapping[int, str]) -> list[str]:
    """Return the name of each parameter, its number where it is not known.

    Args:
        parameters: Those of an optimizer, in its order.
        known: Names by the identity of the parameter.
    """
    return [known.get(id(one), str(number)) for number, one in enumerate(parameters)]
